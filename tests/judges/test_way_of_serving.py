"""What the way of serving decides is asked again when it changes; what decides nothing is not."""

from __future__ import annotations

import json
import math
import shutil
import sqlite3
from dataclasses import replace

import pytest
from harness.model_server import ModelServer

from judges import (
    InProcessJudge,
    JudgeIdentity,
    LabelSettings,
    Ledger,
    OpenAIJudge,
    Reading,
    ScriptedJudge,
    label_pairs,
)
from judges.audit.card import report_card
from judges.ledger.reading import find_label_set, labelled_pairs

SETTINGS = LabelSettings(templates="microworld", mass_threshold=0.0)


@pytest.fixture
def labelled(ledger, make_constitution, make_pairs):
    """`labelled(judge)`: how many calls were asked, and the labels' statuses."""
    c = make_constitution(long="Longer?")

    def run(judge, settings=SETTINGS):
        report = label_pairs(make_pairs(4), constitution=c, judge=judge, ledger=ledger, settings=settings)
        return report.asked, dict(report.statuses)

    return run


@pytest.fixture
def serve():
    """`serve(context=…, listed=…)`: a judge behind a server that has this context and lists these tokens."""
    running = ModelServer(max_model_len=10_000)

    def judge(*, context=10_000, listed=None, **more):
        running.max_model_len = context

        def behave(path, body, n):
            if listed is None or "chat" not in path:
                return None
            top = [{"token": t, "logprob": math.log(p)} for t, p in listed.items()]
            choice = {
                "index": 0,
                "message": {"content": "A"},
                "logprobs": {"content": [{"top_logprobs": top}]},
            }
            return 200, json.dumps({"choices": [choice]})

        running.behave = behave
        return OpenAIJudge(endpoints=[running.url], model="m", timeout_s=5.0, **{"revision": "r1"} | more)

    yield judge
    running.stop()


def test_a_context_that_grew_is_asked_again_and_one_that_did_not_is_not(serve, labelled, tiny_model):
    assert labelled(serve(context=20, tokenizer=tiny_model)) == (8, {"truncated": 4})
    assert labelled(serve(context=20, tokenizer=tiny_model)) == (1, {"truncated": 4})
    asked, statuses = labelled(serve(context=4000, tokenizer=tiny_model))
    assert (asked, statuses.keys() & {"truncated"}) == (8, set())
    assert labelled(serve(context=20, tokenizer=tiny_model))[0] == 0, "what is answered stays answered"


SHORT = {"A": 0.4, "The": 0.2, "I": 0.15, "Both": 0.1, "It": 0.08}


def test_a_list_that_grew_is_asked_again_and_one_that_did_not_is_not(serve, labelled, ledger):
    assert labelled(serve(listed=SHORT)) == (8, {"no_answer": 4})
    assert labelled(serve(listed=SHORT)) == (1, {"no_answer": 4})
    detail = next(labelled_pairs(ledger, find_label_set(ledger))).label.detail
    assert "not among the 5 listed tokens" in detail
    assert labelled(serve(listed=SHORT | {"B": 0.05})) == (8, {"inconsistent": 4})


def test_the_route_and_the_tokenizers_template_are_in_the_key(serve, labelled, tiny_model, tmp_path):
    assert labelled(serve())[0] == 8
    assert labelled(serve(tokenizer=tiny_model))[0] == 8, "by token ids is not by the server's template"
    assert labelled(serve(tokenizer=tiny_model))[0] == 0
    other = tmp_path / "other"
    shutil.copytree(tiny_model, other)
    assert labelled(serve(tokenizer=other))[0] == 0, "the same tokenizer in another folder"
    template = other / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|end|>", "<|end|><|end|>"))
    assert labelled(serve(tokenizer=other))[0] == 8


def test_the_weights_decide_and_neither_the_folders_name_nor_a_report_in_it(labelled, tiny_model, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        shutil.copytree(tiny_model, folder)
    (second / "result.json").write_text('{"loss": 1.0}')
    (second / "README.md").write_text("a card")
    assert labelled(InProcessJudge(first, dtype="float32"))[0] == 8
    assert labelled(InProcessJudge(second, dtype="float32"))[0] == 0
    assert labelled(InProcessJudge(second, dtype="bfloat16"))[0] == 8
    assert labelled(InProcessJudge(first, dtype="float32"))[0] == 0
    config = json.loads((second / "config.json").read_text())
    (second / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.1}))
    assert labelled(InProcessJudge(second, dtype="float32"))[0] == 8


class Former(ScriptedJudge):
    """A judge with a chosen identity."""

    def __init__(self, answer=0.9, **identity):
        super().__init__(answer if callable(answer) else lambda call: answer)
        base = JudgeIdentity(kind="openai", model="m", revision="r1", build="vllm 0.31")
        self._identity = replace(base, **identity)


def test_judgements_of_ledgers_before_ways_were_written_down_are_kept(
    make_constitution, make_pairs, tmp_path
):
    path = tmp_path / "l.db"
    what = {"constitution": make_constitution(long="Longer?"), "settings": SETTINGS}
    with Ledger.open(str(path)) as ledger:
        before = label_pairs(make_pairs(4), judge=Former(), ledger=ledger, **what)
        connection = sqlite3.connect(path)
        connection.execute("UPDATE judgements SET serving = NULL")
        connection.commit()
        connection.close()
        again = label_pairs(make_pairs(4), judge=Former(serving="chat"), ledger=ledger, **what)
        assert (before.asked, again.asked, again.known) == (8, 0, 8)
        card = report_card(ledger, again.label_set)
        assert dict(card.rows[0].statuses) == {"inconsistent": 4}, (
            "their judgements are found from the labels"
        )
        # A way that was written down is no other's.
        other = label_pairs(make_pairs(4), judge=Former(serving="token ids"), ledger=ledger, **what)
        third = label_pairs(make_pairs(8), judge=Former(serving="chat"), ledger=ledger, **what)
        fourth = label_pairs(make_pairs(8), judge=Former(serving="token ids"), ledger=ledger, **what)
    assert (other.asked, third.asked, fourth.asked) == (0, 8, 8)


def test_orders_from_two_builds_of_one_server_are_one_verdict_on_the_card(
    ledger, make_constitution, make_pairs
):
    asked = []

    def flaky(call):
        asked.append(call)
        return Reading(status="timeout") if len(asked) % 7 == 0 else 0.9

    what = {"constitution": make_constitution(long="Longer?"), "ledger": ledger, "settings": SETTINGS}
    label_pairs(make_pairs(40), judge=Former(flaky), **what)
    report = label_pairs(make_pairs(40), judge=Former(build="vllm 0.32"), **what)
    assert dict(report.statuses) == {"inconsistent": 40}
    assert dict(report_card(ledger, report.label_set).rows[0].statuses) == {"inconsistent": 40}


def test_a_judge_of_exactly_one_half_prefers_neither(ledger, make_constitution, make_pairs):
    from judges.exam import ExamSettings, examine
    from judges.known import KnownPair

    known = [KnownPair(pair=p, winner="b" if n % 10 else "a") for n, p in enumerate(make_pairs(40))]
    report = examine(
        ScriptedJudge(lambda call: 0.5),
        make_constitution(long="Longer?"),
        known,
        ledger=ledger,
        settings=LabelSettings(templates="microworld"),
        exam=ExamSettings(),
        source="x",
    )
    assert report.kappa is None or report.kappa <= 0
    assert report.alpha <= 0, "no agreement with people who mostly say b"
    assert (report.reliability, report.calibration_error) == ((), None)
