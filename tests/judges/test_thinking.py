"""Judges that think: the thought is opened, closed and never shown to anybody; the letter is read behind it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from harness.chat_tokenizers import HARMONY, QWEN3, R1
from harness.chat_tokenizers import make as make_tokenizer
from harness.model_server import ModelServer

from common.chat.thoughts import split_thought
from engines import Answer, Request
from judges import Call, InProcessJudge, JudgeError, LabelSettings, OpenAIJudge, label_pairs
from judges.encoding import CallEncoder
from judges.ledger.rows import Judgement, judgement_values
from judges.records import Reading, Sampling
from judges.settings import JudgeSettings
from judges.thinking import Thinker, ThinkingBudget, ThoughtEncoder, answered

QUESTION = ({"role": "user", "content": "Which? (A) or (B) <think>"},)
LETTER = Call(messages=QUESTION)
RATIONALE = Call(messages=QUESTION, write=Sampling(max_tokens=20, temperature=0.0), conclude="So?")


class Scripted:
    """An engine that thinks `thought` and then answers; it keeps what it was asked."""

    def __init__(self, tokenizer, thought: str, *, ended: bool = True) -> None:
        self.tokenizer, self.thought, self.ended = tokenizer, thought, ended
        self.asked: list[Request] = []

    def __call__(self, requests: list[Request]) -> list[Answer]:
        self.asked += requests
        return [self.answer(request) for request in requests]

    def answer(self, request: Request) -> Answer:
        prompt = self.tokenizer.decode(request.ids)
        if request.write is None:
            return Answer(status="ok", logprobs=(-0.1, -3.0), prompt_tokens=9, completion_tokens=1)
        if "</think>" in prompt.rpartition("assistant")[2]:
            return Answer(status="ok", text="because", prompt_tokens=9, completion_tokens=2)
        status = "ok" if self.ended else "truncated"
        return Answer(status=status, text=self.thought, prompt_tokens=7, completion_tokens=5)


@pytest.mark.parametrize("template", [QWEN3, R1], ids=["qwen3", "r1"])
@pytest.mark.parametrize("call", [LETTER, RATIONALE], ids=["letter", "rationale"])
@pytest.mark.parametrize("ended", [True, False])
def test_a_thought_is_opened_closed_and_told(template, call, ended):
    tokenizer = make_tokenizer("bytes", template)
    engine = Scripted(tokenizer, "A is </think> better <|im_end|>", ended=ended)
    thinker = Thinker(tokenizer, CallEncoder(tokenizer), 32)
    (answer,) = answered([call], CallEncoder(tokenizer), thinker, engine, context=512)
    first, second = engine.asked
    closing = tokenizer.convert_tokens_to_ids("</think>")
    opened, closed = tokenizer.decode(first.ids), tokenizer.decode(second.ids)
    assert opened.endswith("<think>\n") and opened.count("<think>") == 2  # one is the question's, as text
    assert first.write.stop_ids == (closing,) and first.write.max_new_tokens == 32
    assert closed.startswith(opened) and closed.endswith("</think>\n\n")
    # What the thought spells of control tokens is text: one mark ends it, one turn is open.
    assert list(second.ids).count(closing) == 1
    assert list(second.ids).count(tokenizer.convert_tokens_to_ids("<|im_end|>")) <= 1
    assert answer.thought and answer.status == "ok"
    assert (answer.detail is None) is ended and answer.prompt_tokens == 16
    if not ended:
        assert answer.detail == "the thought was closed after 32 tokens"


def test_without_room_for_a_thought_there_is_a_status():
    tokenizer = make_tokenizer("bytes", QWEN3)
    thinker = Thinker(tokenizer, CallEncoder(tokenizer), 32)
    (answer,) = answered([LETTER], CallEncoder(tokenizer), thinker, Scripted(tokenizer, "x"), context=20)
    assert answer.status == "truncated" and "no room for a thought" in answer.detail


@pytest.mark.parametrize("template", [HARMONY, None], ids=["harmony", "none"])
def test_a_model_that_knows_no_thoughts_is_named(template):
    tokenizer = make_tokenizer("bytes", template)
    if template is None:
        with pytest.raises(JudgeError, match=r"know no thoughts; leave it out, or .*rationales: 1"):
            ThoughtEncoder(tokenizer)
    else:
        assert ThoughtEncoder(tokenizer).marks.opening == "<think>"  # tokens of its vocabulary


@pytest.mark.parametrize(
    ("text", "opened", "thought", "answer", "ended"),
    [
        ("Paris.", False, "", "Paris.", True),
        ("<think>\nhm\n</think>\n\nParis.", False, "hm", "Paris.", True),
        ("hm\n</think>\n\nParis.", True, "hm", "Paris.", True),
        ("hm\n</think>Paris.", False, "hm", "Paris.", True),
        ("<think>\nhm", False, "hm", "", False),
        ("hm", True, "hm", "", False),
        ("[THINK]hm[/THINK]Paris.", False, "hm", "Paris.", True),
        ("<think>a</think>b</think>c", False, "a</think>b", "c", True),
        ("Say <think> twice.", False, "", "Say <think> twice.", True),
        ("", False, "", "", True),
    ],
)
def test_a_thought_is_split_from_its_answer(text, opened, thought, answer, ended):
    found = split_thought(text, opened=opened)
    assert (found.thought, found.answer, found.ended) == (thought, answer, ended)


def test_the_setting_is_part_of_who_judges_only_where_it_changes_something(tiny_model):
    plain = InProcessJudge(tiny_model, dtype="float32").identity
    assert InProcessJudge(tiny_model, dtype="float32", thinking="off").identity.key() == plain.key()
    thinks = InProcessJudge(tiny_model, dtype="float32", thinking=ThinkingBudget(budget=64)).identity
    assert thinks.key() == {**plain.key(), "serving": "thinking, budget 64"}
    for given, kept in (
        (True, "on"),
        (False, "off"),
        ({"budget": 9}, ThinkingBudget(budget=9)),
        (None, None),
    ):
        assert JudgeSettings.model_validate({"model": "m", "thinking": given}).thinking == kept


def test_a_thought_is_kept_in_the_ledger_with_the_rest():
    reading = Reading(status="ok", logprobs=(-0.1, -3.0), thought="hm", text="because")
    row = Judgement(
        key="k",
        item="i",
        principle_id="p",
        principle="d",
        shown="ab",
        prompt="q",
        judge="j",
        method="m",
        reading=reading,
        created_at=0.0,
    )
    assert judgement_values(row)["text"] == "<think>\nhm\n</think>\n\nbecause"
    alone = judgement_values(replace(row, reading=replace(reading, text=None)))
    assert alone["text"] == "<think>\nhm\n</think>"


def chat_server(says):
    return ModelServer(behave=lambda path, body, n: (200, json.dumps(says(body))), max_model_len=4096)


def verdict(letter: str, **message) -> dict:
    content = message.pop("before", "") + json.dumps({"rationale": "r", "answer": letter})
    choice = {"index": 0, "message": {"content": content, **message}, "finish_reason": "stop"}
    return {"choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": 5}}


@pytest.mark.parametrize("kept", ["by the server", "in the text"])
def test_over_chat_a_thinking_judge_gives_verdicts(ledger, make_constitution, make_pairs, kept):
    by_server = {"reasoning_content": "hm"} if kept == "by the server" else {"before": "<think>hm</think>\n"}
    server = chat_server(lambda body: verdict("A", **dict(by_server)))
    judge = OpenAIJudge(endpoints=[server.url], revision="1", thinking=ThinkingBudget(budget=300))
    try:
        settings = LabelSettings(readout="verdict", rationale_tokens=50)
        report = label_pairs(
            make_pairs(1),
            constitution=make_constitution(long="Longer?"),
            judge=judge,
            ledger=ledger,
            settings=settings,
        )
        assert report.statuses == {"tie": 1} or report.statuses == {"inconsistent": 1}
        body = server.requests[0][1]
        assert body["chat_template_kwargs"] == {"enable_thinking": True, "thinking": True}
        assert body["max_tokens"] == 350
        assert "thinking, budget 300" in judge.identity.serving
        with pytest.raises(JudgeError, match=r"judge\.tokenizer .*or set labels\.readout: verdict"):
            judge.ask([LETTER])
    finally:
        judge.close()
        server.stop()


def test_over_chat_off_is_said_to_the_template_and_a_strict_server_is_asked_without():
    def says(body):
        top = [{"token": "A", "logprob": -0.1}, {"token": "B", "logprob": -3.0}]
        return {
            "choices": [
                {"index": 0, "message": {"content": "A"}, "logprobs": {"content": [{"top_logprobs": top}]}}
            ]
        }

    def strict(path, body, n):
        if "chat_template_kwargs" in body:
            return 400, json.dumps({"error": {"message": "unknown field chat_template_kwargs"}})
        return 200, json.dumps(says(body))

    server = chat_server(says)
    judge = OpenAIJudge(endpoints=[server.url], revision="1", thinking="off")
    silent = OpenAIJudge(endpoints=[server.url], revision="1")
    assert judge.ask([LETTER])[0].status == "ok" and silent.ask([LETTER])[0].status == "ok"
    sent = [body.get("chat_template_kwargs") for _, body in server.requests]
    assert sent == [{"enable_thinking": False, "thinking": False}, None]
    assert judge.identity.serving == "chat; thinking off" and silent.identity.serving == "chat"
    server.behave = strict
    again = OpenAIJudge(endpoints=[server.url], revision="1", thinking="off")
    assert again.ask([LETTER])[0].status == "ok"
    for one in (judge, silent, again):
        one.close()
    server.stop()


def test_a_thought_that_did_not_end_is_truncated_and_names_the_setting():
    def says(body):
        return {
            "choices": [{"index": 0, "message": {"content": "<think>and so on"}, "finish_reason": "stop"}]
        }

    server = chat_server(says)
    judge = OpenAIJudge(endpoints=[server.url], revision="1")
    reading = judge.ask([RATIONALE])[0]
    assert reading.status == "truncated" and "judge.thinking" in reading.detail
    assert reading.text is None and reading.thought == "and so on"
    judge.close()
    server.stop()
