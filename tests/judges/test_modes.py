"""Chain of thought, several judges, rankings, JSON verdicts: each through the ledger."""

from __future__ import annotations

import json
import math
import shutil

import pytest

from judges import (
    Call,
    InProcessJudge,
    JudgeError,
    LabelSettings,
    Margins,
    Ranking,
    Reading,
    Sampling,
    ScriptedJudge,
    label_pairs,
)
from judges.asking.combine import combine
from judges.asking.templates import SHIPPED
from judges.asking.verdict import read_verdict
from judges.explain import explain
from judges.ledger.reading import labelled_pairs
from judges.records import orders

COT = LabelSettings(rationales=2, batch_pairs=4)


@pytest.fixture
def c(make_constitution):
    return make_constitution(long="Which is longer?")


def shown(call: Call) -> dict[str, str]:
    """Letter to text, as the last message with fences shows them."""
    text = next(m["content"] for m in reversed(call.messages) if "<<response A" in m["content"])
    tag = text.split("<<response A ")[1].split(">>")[0]
    return {
        x: text.split(f"<<response {x} {tag}>>\n")[1].split(f"\n<</response {x} {tag}>>")[0]
        for x in call.options
    }


def longest(call: Call) -> str:
    texts = shown(call)
    return max(texts, key=lambda x: len(texts[x]))


def thinks(call: Call):
    return f"{longest(call)} says more." if call.write else (0.99 if longest(call) == "A" else 0.01)


def run(items, judge, ledger, c, settings):
    return label_pairs(items, constitution=c, judge=judge, ledger=ledger, settings=settings)


def labels(ledger, report):
    return {x.pair.id: x.label for x in labelled_pairs(ledger, report.label_set)}


def test_a_rationale_comes_first_and_the_label_is_clamped(ledger, c, make_pairs):
    asked = []

    def judge(call):
        asked.append(call)
        return thinks(call)

    report = run(make_pairs(3), ScriptedJudge(judge), ledger, c, COT)
    assert (report.asked, report.statuses) == (12, {"ok": 3})
    for label in labels(ledger, report).values():
        assert (label.p, label.p_raw) == (0.6, pytest.approx(0.99))
    answers = [call for call in asked if call.write is None]
    assert len(answers) == 12
    assert all(call.messages[-2]["content"].endswith("says more.") for call in answers)
    assert {call.write.seed for call in asked if call.write} == {0, 1}
    story = explain(ledger, "pair-00000")
    assert len(story.judgements) == 4
    assert all(j.reading.text.endswith("says more.") and j.call is not None for j in story.judgements)
    assert run(make_pairs(3), ScriptedJudge(judge), ledger, c, COT).asked == 0


def test_without_a_rationale_nothing_is_clamped(ledger, c, make_pairs):
    report = run(make_pairs(1), ScriptedJudge(thinks), ledger, c, LabelSettings())
    label = labels(ledger, report)["pair-00000"]
    assert label.p == label.p_raw == pytest.approx(0.99)


@pytest.mark.parametrize(
    ("written", "status"),
    [
        (Reading(status="truncated", text="half a"), "truncated"),
        (Reading(status="refused"), "refused"),
        ("", "no_answer"),
        (None, "error"),
        (Reading(status="ok"), "error"),
        (Reading(status="ok", text=7), "error"),
    ],
)
def test_a_rationale_that_failed_is_the_status(ledger, c, make_pairs, written, status):
    judge = ScriptedJudge(lambda call: written if call.write else "A")
    report = run(make_pairs(1), judge, ledger, c, LabelSettings(rationales=1))
    assert report.statuses == {status: 1}


def test_a_set_without_rationale_template_says_so(ledger, c, make_pairs):
    settings = LabelSettings(rationales=1, templates="microworld")
    with pytest.raises(JudgeError, match=r"has no rationale\.j2"):
        run(make_pairs(1), ScriptedJudge(thinks), ledger, c, settings)
    with pytest.raises(ValueError, match="rationales: several at temperature 0"):
        LabelSettings(rationales=2, temperature=0.0)


def test_judges_vote_and_a_new_one_asks_only_itself(ledger, c, make_pairs):
    sure = ScriptedJudge(lambda call: 0.9 if longest(call) == "A" else 0.1, name="sure")
    torn = ScriptedJudge(lambda call: 0.5, name="torn")
    one = run(make_pairs(4), sure, ledger, c, LabelSettings())
    both = run(make_pairs(4), [sure, torn], ledger, c, LabelSettings())
    assert (one.asked, both.asked, both.known) == (8, 8, 8)
    for label in labels(ledger, both).values():
        assert (label.p, label.spread) == (pytest.approx(0.7), pytest.approx(0.2))
    assert {j.judge.model for j in explain(ledger, "pair-00001").judgements} == {"sure", "torn"}
    with pytest.raises(JudgeError, match="two judges are the same"):
        run(make_pairs(1), [sure, sure], ledger, c, LabelSettings())
    with pytest.raises(JudgeError, match="no judge"):
        run(make_pairs(1), [], ledger, c, LabelSettings())


def test_a_failing_judge_among_several_fails_the_label(ledger, c, make_pairs):
    broken = ScriptedJudge(lambda call: None, name="broken")
    report = run(make_pairs(2), [ScriptedJudge(thinks), broken], ledger, c, LabelSettings())
    assert report.statuses == {"error": 2}


@pytest.mark.parametrize("k", [2, 3, 4])
def test_a_ranking_yields_all_its_pairs_from_k_calls(ledger, c, k):
    """A judge whose choice follows strengths 1, 2, 4, 8 gives each pair the ratio of its two."""
    texts = tuple("x" * (i + 1) for i in range(k))

    def luce(call):
        strengths = [2.0 ** len(text) for text in shown(call).values()]
        return tuple(math.log(s / sum(strengths)) for s in strengths)

    ranking = Ranking(id="r", prompt=({"role": "user", "content": "Hi"},), responses=texts)
    report = run([ranking], ScriptedJudge(luce), ledger, c, LabelSettings())
    assert report.asked == k
    found = labels(ledger, report)
    assert len(found) == k * (k - 1) // 2
    for name, label in found.items():
        i, j = ("abcd".index(x) for x in name[-2:])
        assert label.p == pytest.approx(2.0**i / (2.0**i + 2.0**j))
    assert all(j.call is not None for j in explain(ledger, "r:ab").judgements)
    assert run([ranking], ScriptedJudge(luce), ledger, c, LabelSettings()).asked == 0


@pytest.mark.parametrize("k", [2, 3, 4])
def test_a_ranking_by_slot_yields_no_preference(k):
    slot = Reading(status="ok", logprobs=tuple(math.log(p) for p in (0.9, 0.05, 0.03, 0.02)[:k]))
    for pair in ("ab", "bc", "ad", "cd"):
        if set(pair) <= set("abcd"[:k]):
            total = combine([[slot] * k], Margins(), shown=orders(k), pair=pair)
            assert total.status in ("tie", "inconsistent")


def test_every_response_stands_once_in_every_place():
    for k in (2, 3, 4):
        places = [[order.index(x) for order in orders(k)] for x in "abcd"[:k]]
        assert all(sorted(p) == list(range(k)) for p in places)
    with pytest.raises(JudgeError, match="has 5 responses"):
        Ranking(id="r", prompt=(), responses=tuple("abcde"))


def test_json_verdicts(ledger, c, make_pairs):
    settings = LabelSettings(readout="verdict")
    judge = ScriptedJudge(lambda call: json.dumps({"rationale": "longer", "answer": longest(call)}))
    report = run(make_pairs(3), judge, ledger, c, settings)
    assert (report.asked, report.statuses) == (6, {"ok": 3})
    assert {(label.p, label.p_raw) for label in labels(ledger, report).values()} == {(0.6, 1.0)}
    ranking = Ranking(id="r", prompt=({"role": "user", "content": "Hi"},), responses=("a", "b", "c"))
    with pytest.raises(JudgeError, match="rankings need logprobs"):
        run([ranking], judge, ledger, c, settings)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "A",
        '"A"',
        "{}",
        '{"answer": "A"}',
        '{"rationale": "x", "answer": "C"}',
        '{"rationale": "x", "answer": ["A", "B"]}',
        '{"rationale": "x", "answer": "A", "also": "B"}',
        '{"rationale": 1, "answer": "A"}',
        'Sure: {"rationale": "x", "answer": "A"}',
        '{"rationale": "x", "answer": "A"} {"rationale": "x", "answer": "B"}',
        "[" * 100_000,
    ],
)
def test_what_is_not_exactly_a_verdict_is_no_answer(text):
    call = Call(write=Sampling(max_tokens=9, temperature=0.0), verdict=True)
    reading = read_verdict(call, Reading(status="ok", text=text))
    assert (reading.status, reading.logprobs) == ("no_answer", None)


def test_an_in_process_judge_writes_and_reads(tiny_model):
    judge = InProcessJudge(tiny_model, dtype="float32")
    message = ({"role": "user", "content": "bake bread"},)
    write = Call(messages=message, write=Sampling(max_tokens=8, temperature=1.0, seed=3))
    readings = judge.ask([write, Call(messages=message), write])
    assert readings[1].status == "ok" and len(readings[1].logprobs) == 2
    for reading in (readings[0], readings[2]):
        assert reading.status in ("ok", "truncated")
        assert isinstance(reading.text, str) and 0 <= reading.completion_tokens <= 8
    assert judge.ask([write])[0].text == judge.ask([write])[0].text
    long = Call(messages=message, write=Sampling(max_tokens=600, temperature=1.0))
    assert judge.ask([long])[0].status == "truncated"
    with pytest.raises(JudgeError, match="set readout: logprobs"):
        judge.ask([Call(messages=message, write=write.write, verdict=True)])


def test_another_concluding_question_asks_again(ledger, c, make_pairs, tmp_path):
    """The letter answers the block `conclude`, so its words are part of every key."""
    folder = shutil.copytree(SHIPPED / "default", tmp_path / "mine")
    settings = LabelSettings(rationales=1, templates=str(folder))
    assert run(make_pairs(2), ScriptedJudge(thinks), ledger, c, settings).asked == 4
    before = explain(ledger, "pair-00000")
    assert "satisfies the principle best" in before.judgements[0].call.conclude
    file = folder / "rationale.j2"
    file.write_text(file.read_text().replace("satisfies the principle best", "is WORST"))
    assert run(make_pairs(2), ScriptedJudge(thinks), ledger, c, settings).asked == 4
    after = explain(ledger, "pair-00000")
    assert "is WORST" in after.judgements[0].call.conclude
    assert {j.prompt_digest for j in before.judgements}.isdisjoint(j.prompt_digest for j in after.judgements)
    # Another comment asks nothing, and what the question may name, it may name.
    file.write_text(file.read_text() + "{# a comment #}")
    assert run(make_pairs(2), ScriptedJudge(thinks), ledger, c, settings).asked == 0
    file.write_text(file.read_text().replace("is WORST", "answers: {{ question }}"))
    assert run(make_pairs(2), ScriptedJudge(thinks), ledger, c, settings).asked == 4


@pytest.mark.parametrize(
    "text", ["Compare {{ a }} and {{ b }}", "{% block completion %}{{ a }}{% endblock %}"]
)
def test_a_rationale_template_that_cannot_be_concluded_says_so(ledger, c, make_pairs, tmp_path, text):
    folder = shutil.copytree(SHIPPED / "default", tmp_path / "mine")
    (folder / "rationale.j2").write_text(text)
    settings = LabelSettings(rationales=1, templates=str(folder))
    with pytest.raises(JudgeError, match=r"mine/rationale\.j2: needs the blocks user, conclude"):
        run(make_pairs(1), ScriptedJudge(thinks), ledger, c, settings)
