"""Side effects in the views: figures with their normal range, flags by name, phrases as text."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from common.rows import Prompt
from common.sections import texts
from flows.evaluation import read_answers, watch
from flows.report.data import MODELS, ReportData
from flows.report.run import html, print_report, result_markdown
from flows.report.side_effects import effect_section, effect_sentences, stretch_section
from flows.report.summary import Summary

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
    return watch(answers, reference="sl_cai", steps=rows)


@pytest.fixture
def data(watched) -> ReportData:
    summary = {
        "name": "demo",
        "seed": 0,
        "constitution": {"ref": "x@1.0.0", "digest": "ab" * 32, "published": True},
        "models": {role: {"words": WORDS, "reward": WORDS} for role in watched.models},
        "judge": {},
        "revision": {},
        "reward_model": {},
        "side_effects": watched.to_json(),
        "rl": {"curve": []},
        "stages": {},
        "seconds": 1.0,
        "peak_memory_bytes": 1,
    }
    read = Summary.from_json(summary)
    assert read.side_effects == watched, "what is written is read back"
    return ReportData(summary=read)


def test_rows_show_both_models_and_mark_what_is_flagged(watched):
    heading, *rows = texts(effect_section(watched, MODELS).rows)
    assert heading == ["measure", "SL-CAI", "RL-CAI", "flagged beyond"]
    found = {row[0]: row[1:] for row in rows}
    normal, moved, rule = found["words of an answer"]
    assert moved.endswith("▲") and "▲" not in normal and rule == "+25%, -50%"
    assert not found["prompts refused, harmless ones where known"][1].endswith("▲")
    assert effect_section(None, MODELS).empty


def test_sentences_name_the_effect_the_figure_and_what_is_normal(watched):
    said = effect_sentences(watched, "rl_cai", "RL-CAI")
    assert any("longer answers" in s and "normal is" in s for s in said)
    assert any("careful assistant i must" in s and "100% (normally 0%)" in s for s in said)
    assert effect_sentences(watched, "sl_cai", "SL-CAI") == []
    calm = replace(watched, flags={"rl_cai": ()})
    assert effect_sentences(calm, "rl_cai", "RL-CAI") == [
        "Side effects: none of 7 left the normal range in RL-CAI."
    ]


def test_too_few_prompts_are_said_to_be_too_few(watched):
    keys = [*watched.models["rl_cai"].effects, "distinct_2", "boilerplate"]
    few = replace(watched, too_few={"rl_cai": tuple(keys[:7])}, flags={"rl_cai": ()})
    assert effect_sentences(few, "rl_cai", "RL-CAI") == [
        "Side effects in RL-CAI: 7 not judged, on fewer than 10 prompts."
    ]
    untold = replace(watched, steps=(replace(watched.steps[1], flags=None),))
    (row,) = texts(stretch_section(untold).rows)[1:]
    assert row[-1] == "too few prompts to tell"


def test_steps_say_where_it_began(watched):
    heading, first, second = texts(stretch_section(watched).rows)
    assert [first[0], second[0]] == ["1-1", "2-2"]
    assert first[-1] == "-" and "longer answers" in second[-1] and "hedging and boilerplate" in second[-1]
    found = dict(zip(heading, second, strict=True))
    assert found["false and sure"] == "-" and 0 < float(found["different 2-grams"]) < 100
    assert "i must" in found["most overused phrase"] and "in 100" in found["most overused phrase"]


def test_every_view_of_a_run_has_them(data):
    page, artifact = html(data), result_markdown(data)
    assert "<h2>Side effects</h2>" in page and "Along reinforcement learning" in page
    assert "## Side effects" in artifact and "▲" in artifact
    console = Console(file=io.StringIO(), width=200)
    print_report(data, console)
    assert "Side effect in RL-CAI: longer answers" in console.file.getvalue()
