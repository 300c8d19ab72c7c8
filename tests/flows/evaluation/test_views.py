"""Side effects in the views: figures with their normal range, flags by name, phrases as text."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from common.rows import Prompt
from flows.evaluation import read_answers, watch, watch_steps
from flows.report.data import MODELS, ReportData
from flows.report.html import render
from flows.report.markdown import result_markdown
from flows.report.side_effects import effect_rows, effect_sentences, step_rows
from flows.report.terminal import print_report

WORDS = {"value": 9.0, "low": 8.0, "high": 10.0, "n": 60}


@pytest.fixture(scope="module")
def watched():
    """SL-CAI answers in few words, RL-CAI the same with a phrase before them."""
    prompts = [
        Prompt(id=f"p{i}", prompt=[{"role": "user", "content": f"How do I mend item{i}?"}]) for i in range(60)
    ]
    plain = [f"Take glue{i} and press item{i} for {i} minutes." for i in range(60)]
    texts = {"sl_cai": plain, "rl_cai": [f"As a careful assistant I must stress: {t}" for t in plain]}
    answers = {role: read_answers(prompts, found) for role, found in texts.items()}
    rows = [(step, answer) for step, role in ((1, "sl_cai"), (2, "rl_cai")) for answer in answers[role]]
    return {**watch(answers, reference="sl_cai"), "steps": watch_steps(rows)}


@pytest.fixture
def data(watched) -> ReportData:
    return ReportData(
        summary={
            "name": "demo",
            "seed": 0,
            "constitution": {"ref": "x@1.0.0", "digest": "ab" * 32, "published": True},
            "models": {
                role: {"words": {"value": 9.0, "low": 8.0, "high": 10.0, "n": 60}}
                for role in watched["models"]
            },
            "side_effects": watched,
            "rl": {"curve": []},
            "stages": {},
            "seconds": 1.0,
            "peak_memory_bytes": 1,
        }
    )


def test_rows_show_both_models_and_mark_what_is_flagged(watched):
    heading, *rows = effect_rows(watched, MODELS)
    assert heading == ["measure", "SL-CAI", "RL-CAI", "flagged beyond"]
    found = {row[0]: row[1:] for row in rows}
    normal, moved, rule = found["words of an answer"]
    assert moved.endswith("▲") and "▲" not in normal and rule == "+25%, -50%"
    assert not found["prompts refused, harmless ones where known"][1].endswith("▲")
    assert effect_rows({}, MODELS) == []


def test_sentences_name_the_effect_the_figure_and_what_is_normal(watched):
    said = effect_sentences(watched, "rl_cai", "RL-CAI")
    assert any("longer answers" in s and "normal is" in s for s in said)
    assert any("careful assistant i must" in s and "100% (normally 0%)" in s for s in said)
    assert effect_sentences(watched, "sl_cai", "SL-CAI") == []
    calm = {**watched, "flags": {"rl_cai": []}}
    assert effect_sentences(calm, "rl_cai", "RL-CAI") == [
        "Side effects: none of 7 left the normal range in RL-CAI."
    ]


def test_too_few_prompts_are_said_to_be_too_few(watched):
    few = {**watched, "untold": {"rl_cai": list(watched["models"]["rl_cai"])[:7]}, "flags": {"rl_cai": []}}
    assert effect_sentences(few, "rl_cai", "RL-CAI") == [
        "Side effects in RL-CAI: 7 not judged, on fewer than 10 prompts."
    ]
    (row,) = step_rows({"steps": [{**watched["steps"][1], "flags": None}]})[1:]
    assert row[-1] == "too few prompts to tell"


def test_steps_say_where_it_began(watched):
    heading, first, second = step_rows(watched)
    assert [first[0], second[0]] == ["1-1", "2-2"]
    assert first[-1] == "-" and "longer answers" in second[-1] and "hedging and boilerplate" in second[-1]
    found = dict(zip(heading, second, strict=True))
    assert found["false and sure"] == "-" and 0 < float(found["different 2-grams"]) < 100
    assert "i must" in found["most overused phrase"] and "in 100" in found["most overused phrase"]


def test_every_view_of_a_run_has_them(data):
    page, artifact = render(data), result_markdown(data)
    assert "<h2>Side effects</h2>" in page and "Along reinforcement learning" in page
    assert "## Side effects" in artifact and "▲" in artifact
    console = Console(file=io.StringIO(), width=200)
    print_report(data, console)
    assert "Side effect in RL-CAI: longer answers" in console.file.getvalue()
