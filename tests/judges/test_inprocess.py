from __future__ import annotations

import math

import pytest
from harness.tiny import TEMPLATE, save

from judges import Call, InProcessJudge, JudgeError


def user(text: str, **more) -> Call:
    return Call(messages=({"role": "user", "content": text},), **more)


@pytest.fixture(scope="module")
def judge(tiny_model):
    return InProcessJudge(tiny_model, dtype="float32", tokens_per_batch=256)


def reference(folder, ids, answers):
    """Log probability of each answer (token ids) after `ids`, one sequence at a time, without any batching."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    totals = []
    for answer in answers:
        with torch.no_grad():
            logits = model(torch.tensor([ids + answer])).logits[0].log_softmax(-1)
        totals.append(sum(float(logits[len(ids) - 1 + k, t]) for k, t in enumerate(answer)))
    return totals


def test_batched_reading_equals_one_by_one(judge, tiny_model):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    texts = ["principle", "bake bread please " * 9, "wash", "short answer: A or B? " * 4, "naïve – ответ"]
    readings = judge.ask([user(t) for t in texts])
    for text, reading in zip(texts, readings, strict=True):
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=False
        )
        a, space_a, b, space_b = reference(
            tiny_model, ids, [tokenizer.encode(t, add_special_tokens=False) for t in ("A", " A", "B", " B")]
        )
        assert reading.status == "ok"
        assert reading.prompt_tokens == len(ids)
        assert reading.logprobs == pytest.approx(
            (math.log(math.exp(a) + math.exp(space_a)), math.log(math.exp(b) + math.exp(space_b))), abs=1e-3
        )


def test_options_of_several_tokens_are_scored_whole(judge, tiny_model):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    options = ("the first response", "the second")
    calls = [user(t, options=options) for t in ("bake", "wash glass " * 7)]
    for call, reading in zip(calls, judge.ask(calls), strict=True):
        ids = tokenizer.apply_chat_template(
            [dict(m) for m in call.messages], add_generation_prompt=True, return_dict=False
        )
        answers = [tokenizer.encode(o, add_special_tokens=False) for o in options]
        assert min(map(len, answers)) > 1
        assert reading.logprobs == pytest.approx(reference(tiny_model, ids, answers), abs=1e-3)


def test_too_long_is_a_status_and_spoils_no_neighbour(judge):
    short, long = user("bake"), user("bake " * 3000)
    alone = judge.ask([short])[0]
    readings = judge.ask([short, long, short])
    assert [r.status for r in readings] == ["ok", "truncated", "ok"]
    assert "the model takes 512" in readings[1].detail
    assert readings[0].logprobs == pytest.approx(alone.logprobs, abs=1e-4)


def test_a_call_that_the_template_refuses_is_a_status_and_spoils_no_neighbour(tmp_path):
    refusing = (
        "{% if 'paper' in messages[0].content %}{{ raise_exception('no paper here') }}{% endif %}" + TEMPLATE
    )
    judge = InProcessJudge(save(tmp_path / "judge", template=refusing), dtype="float32")
    alone = judge.ask([user("bake")])[0]
    readings = judge.ask([user("bake"), user("paper"), user("bread"), user("paper")])
    assert [r.status for r in readings] == ["ok", "no_answer", "ok", "no_answer"]
    assert (
        readings[1].detail.startswith("the judge's chat template") and "no paper here" in readings[1].detail
    )
    assert readings[0].logprobs == pytest.approx(alone.logprobs, abs=1e-4)
    assert [r.status for r in judge.ask([user("paper")])] == ["no_answer"]


def test_no_calls_no_readings(judge):
    assert judge.ask([]) == []


def test_model_without_chat_template(plain_model):
    judge = InProcessJudge(plain_model, dtype="float32")
    readings = judge.ask([user("Which is better?"), Call(text="The better one is")])
    assert [r.status for r in readings] == ["ok", "ok"]


def test_bfloat16_agrees_with_float32(tiny_model, judge):
    call = user("better honest answer")
    rounded = InProcessJudge(tiny_model, dtype="bfloat16").ask([call])[0]
    assert rounded.logprobs == pytest.approx(judge.ask([call])[0].logprobs, abs=1.0)


def test_identity_follows_the_weights_and_not_the_place(tiny_model, tmp_path):
    import shutil

    copy = tmp_path / tiny_model.name
    shutil.copytree(tiny_model, copy)
    original, moved = InProcessJudge(tiny_model).identity, InProcessJudge(copy).identity
    assert moved == original
    with (copy / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        byte = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([byte[0] ^ 1]))
    assert InProcessJudge(copy).identity.revision != original.revision


def test_missing_model_is_one_line(tmp_path):
    with pytest.raises(JudgeError, match="no model in") as caught:
        InProcessJudge(tmp_path / "nowhere")
    assert "\n" not in str(caught.value)
