"""Sampled texts without their thoughts, by ids and by text, whichever engine wrote them."""

from __future__ import annotations

import json

import pytest
from harness.chat_tokenizers import QWEN3, R1
from harness.chat_tokenizers import make as make_tokenizer
from harness.model_server import ModelServer

from engines import Answer, Completion, EngineError, Sampling
from engines.samplers import ChatSampler
from engines.texts import Reader, Text, written_text


@pytest.fixture(scope="module", params=[QWEN3, R1], ids=["qwen3", "r1"])
def tokenizer(request):
    return make_tokenizer("bytes", request.param)


def completed(tokenizer, text: str, finish: str = "stop") -> Text:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id] * (
        finish == "stop"
    )
    found = Completion(text=text, token_ids=tuple(ids), logprobs=(0.0,) * len(ids), finish_reason=finish)
    return Reader(tokenizer).text([1, 2, 3], found)


@pytest.mark.parametrize(
    ("text", "finish", "answer", "thought", "told"),
    [
        ("Tea.", "stop", "Tea.", "", "stop"),
        ("<think>\nhm\n</think>\n\nTea.", "stop", "Tea.", "hm", "stop"),
        ("hm\n</think>\n\nTea.", "stop", "Tea.", "hm", "stop"),
        ("<think>\nhm\n</think>\n\nTe", "length", "Te", "hm", "length"),
        ("<think>\nhm", "length", "", "hm", "length"),
        ("<think>\nhm", "stop", "", "hm", "length"),
        ("a <thinking> b", "stop", "a <thinking> b", "", "stop"),
    ],
)
def test_a_completion_is_read_without_its_thought(tokenizer, text, finish, answer, thought, told):
    found = completed(tokenizer, text, finish)
    assert (found.text, found.thought, found.finish) == (answer, thought, told)
    assert found.prompt_tokens == 3 and found.completion_tokens > 0


@pytest.mark.parametrize(
    ("answer", "finish", "text", "thought"),
    [
        (Answer(status="ok", text="Tea."), "stop", "Tea.", ""),
        (Answer(status="ok", text="<think>hm</think>Tea."), "stop", "Tea.", "hm"),
        (Answer(status="ok", text="Tea.", thought="hm"), "stop", "Tea.", "hm"),
        (Answer(status="truncated", text="<think>hm"), "length", "", "hm"),
        (Answer(status="truncated", cause="context 64"), "prompt_too_long", "", ""),
        (Answer(status="truncated", cause="chat: reasoning parser"), "length", "", ""),
        (Answer(status="refused"), "refused", "", ""),
    ],
)
def test_what_an_api_wrote_is_read_alike(answer, finish, text, thought):
    found = written_text(answer)
    assert (found.finish, found.text, found.thought) == (finish, text, thought)


def test_a_chat_sampler_tells_what_was_written_before_a_server_failed():
    def says(path, body, n):
        asked = body["messages"][0]["content"]
        if asked == "3":
            return 500, "kaput"
        choice = {"index": 0, "message": {"content": f"<think>hm</think>{asked}"}, "finish_reason": "stop"}
        return 200, json.dumps({"choices": [choice], "usage": {"prompt_tokens": 4, "completion_tokens": 2}})

    server = ModelServer(behave=says)
    sampler, told = ChatSampler([server.url]), {}
    try:
        with pytest.raises(EngineError, match=r"error: .*500"):
            sampler.draw(
                [[{"role": "user", "content": str(n)}] for n in range(5)],
                Sampling(max_new_tokens=8),
                seed=0,
                rows=range(5),
                at_once=2,
                on_text=told.__setitem__,
                on_progress=lambda done: None,
            )
    finally:
        server.stop()
    assert {place: text.text for place, text in told.items()} == {n: str(n) for n in (0, 1, 2, 4)}
    assert {text.thought for text in told.values()} == {"hm"} and told[0].completion_tokens == 2
    assert len({body["seed"] for _, body in server.requests}) == 5
