"""Principle by principle: tests and their correction on hand-worked numbers, the marks of an edit, the views."""

from __future__ import annotations

import io
import random
from dataclasses import replace

import pytest
from rich.console import Console

from common.sections import texts
from common.statistics import away_from_half, benjamini_hochberg, bounded_mean
from constitution import loads
from flows.comparison.figures import ComparisonFigures
from flows.comparison.principles import edited_principles
from flows.comparison.report import artifact_page, comparison_page
from flows.comparison.report_principles import example_section, principle_rows, principle_sentences
from flows.evaluation import Match
from flows.evaluation.win_rates import by_principle
from flows.report.render import html, markdown, terminal

HOSTILE = "</td><script>alert(1)</script> [bold]x[/] ![x](https://evil.invalid/x) | `a` \x1b[31m\u202e"


def test_a_win_rate_is_tested_as_its_interval_is_made():
    # 36 of 60: z = 0.1 / sqrt(0.25 / 60) = 1.549, two-sided p 0.1213.
    assert away_from_half([1.0] * 36 + [0.0] * 24) == pytest.approx(0.1213, abs=5e-5)
    # 3 wins, 1 tie: m = 7/8, s2 = 3/64, z2 = 4 (sqrt(4 s4 + 9/16) - 2 s2) = 2.648, p 0.1037.
    assert away_from_half([1.0, 1.0, 1.0, 0.5]) == pytest.approx(0.1037, abs=5e-5)
    assert away_from_half([0.5] * 9) == 1.0 and away_from_half([]) is None
    rng = random.Random(0)
    for _ in range(300):
        lean = rng.random()
        values = [rng.choice((0.0, 0.5, lean > rng.random())) * 1.0 for _ in range(rng.randint(3, 80))]
        found, p = bounded_mean(values), away_from_half(values)
        if abs(p - 0.05) > 1e-4:  # 1.96 is not quite the quantile
            assert (p < 0.05) == (found.low > 0.5 or found.high < 0.5)


def test_p_values_agree_with_a_library_and_keep_their_level():
    from statsmodels.stats.multitest import multipletests
    from statsmodels.stats.proportion import proportions_ztest

    for wins, n in ((3, 10), (41, 60), (60, 60)):
        theirs = proportions_ztest(wins, n, value=0.5, prop_var=0.5)[1]
        assert away_from_half([1.0] * wins + [0.0] * (n - wins)) == pytest.approx(theirs, rel=1e-9)
    # 0.01 4/2, 0.04 4/4, 0.03 4/3 (capped by the larger one's 0.04), 0.005 4/1 (capped by 0.02).
    assert benjamini_hochberg([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.02, 0.04, 0.04, 0.02])
    rng = random.Random(1)
    for n in (1, 2, 16):
        values = [rng.random() ** 3 for _ in range(n)]
        assert benjamini_hochberg(values) == pytest.approx(multipletests(values, method="fdr_bh")[1])
    assert benjamini_hochberg([]) == []
    # Two equal models, wins, ties and losses at random: one in twenty is called different.
    rejected = sum(
        away_from_half([rng.choice((0.0, 0.0, 0.5, 1.0, 1.0)) for _ in range(60)]) < 0.05 for _ in range(2000)
    )
    assert 0.035 < rejected / 2000 < 0.065


def outcomes(wins: int, ties: int, losses: int, failed: int = 0) -> list[Match]:
    values = [1.0] * wins + [0.5] * ties + [0.0] * losses + [None] * failed
    return [
        Match(prompt=f"p{i}", a="x", b="y", outcome=v, words_a=5, words_b=5) for i, v in enumerate(values)
    ]


def test_a_winner_is_named_after_the_correction_and_a_failure_is_no_test():
    # 15 of 20: z = 2.236, p 0.0253, times 4/1 0.101; alone it would have been a find.
    found = by_principle(
        "x",
        "y",
        {
            "near": outcomes(15, 0, 5),
            "even": outcomes(5, 10, 5),
            "odd": outcomes(11, 0, 9),
            "none": outcomes(0, 0, 0, failed=20),
            "even too": outcomes(10, 0, 10),
        },
    )
    (near, adjusted, ahead), (none, unknown, _) = found["near"], found["none"]
    assert near.p == pytest.approx(0.0253, abs=5e-5)
    assert adjusted == pytest.approx(0.1014, abs=5e-4) and ahead is None
    assert unknown is None and none.undecided == 20
    clear = by_principle("x", "y", {"near": outcomes(2, 0, 18), "even": outcomes(5, 10, 5)})
    assert clear["near"][2] == "y" and clear["even"][2] is None


BEFORE = """\
name: edit
comparison:
  principles:
    - {id: kept, question: Which is true?, dimension: honest}
    - {id: brevity, question: Which is shorter?, dimension: concise}
    - {id: heavier, question: Which is kinder?, dimension: polite}
    - {id: gone, question: Which is safer?, dimension: harmless}
    - {id: off, question: Which is braver?, dimension: bold}
    - {id: sleeping, question: Which is funnier?, dimension: bold, enabled: false}
"""
AFTER = """\
name: edit
critique:
  principles:
    - {id: new, critique_request: Is it safe?, revision_request: Make it safe., dimension: harmless}
comparison:
  principles:
    - {id: fresh, question: Which is clearer?, dimension: helpful}
    - {id: kept, question: Which is true?, dimension: honest}
    - {id: brevity, question: Which is longer?, dimension: concise}
    - {id: heavier, question: Which is kinder?, dimension: polite, weight: 3}
    - {id: off, question: Which is braver?, dimension: bold, enabled: false}
    - {id: sleeping, question: Which is funnier?, dimension: bold}
"""


def test_marks_say_what_is_drawn_now_and_what_no_longer_is():
    before, after = loads(BEFORE), loads(AFTER)
    found = {e.principle.id: e for e in edited_principles(before, after)}
    assert {name: e.mark for name, e in found.items()} == {
        "fresh": "added",
        "kept": "",
        "brevity": "changed",
        "heavier": "changed",
        "sleeping": "added",
        "gone": "removed",
        "off": "removed",
    }
    assert found["brevity"].before.question == "Which is shorter?"
    assert found["heavier"].change == "comparison heavier: weight 1 → 3"
    assert found["off"].change == "comparison off: disabled"
    assert found["gone"].principle.question == "Which is safer?"
    alone = edited_principles(None, after)
    assert [e.principle.id for e in alone] == ["fresh", "kept", "brevity", "heavier", "sleeping"]
    assert not any(e.mark or e.before for e in alone)


def figures(text: str, *, principles: int = 2, **changes) -> ComparisonFigures:
    """A comparison's figures with every text of a model or a file being `text`; `changes` are of by_principle."""
    decided = {
        name: {**one.to_json(), "p_adjusted": p, "favours": favours}
        for name, (one, p, favours) in by_principle(
            "x", "y", {str(n): outcomes(5 + 25 * (1 - n % 2), 5, 5 + 25 * (n % 2)) for n in range(principles)}
        ).items()
    }
    standing = {"pairs": [{**decided["0"], "a": "x", "b": "y"}]}
    standing["against_all"] = {name: decided["0"] for name in "xy"}
    example = {"prompt": text, "a": text, "b": text, "p": 0.9, "p_ab": 0.9, "p_ba": 0.9}
    words = {"value": 5.0, "n": 40, "low": 5.0, "high": 5.0}
    alone = {"words": words, "truncated": 0, "empty": 0, "references": {}}
    constitution = {"ref": text, "published": True, "digest": "0"}
    return ComparisonFigures.from_json(
        {
            "models": [{"name": name, "digest": name * 64, "path": name} for name in "xy"],
            "prompts": {"path": "prompts.jsonl", "n": 40, "samples": 1, "too_long": 0},
            "constitution": constitution,
            "judge": {"kind": "k", "model": "judge", "revision": "1", "build": "b"},
            "sampling": {
                "temperature": 1.0,
                "top_p": 1.0,
                "max_new_tokens": 9,
                "dtype": "float32",
                "seed": 0,
            },
            "statuses": {"overall": {"ok": 40}},
            "asked": 0,
            "ratings": None,
            "dimensions": {"overall": standing},
            "answers": {name: alone for name in "xy"},
            "side_effects": {"reference": "x", "effects": {}, "models": {}, "flags": {}, "untold": {}},
            "by_principle": {
                "before": constitution,
                "after": {**constitution, "digest": "1"},
                "also_edited": [text],
                "principles": [
                    {
                        "id": f"{n} {text}",
                        "dimension": text,
                        "question": text,
                        "question_before": text + "before",
                        "mark": "changed" if n == 1 else "",
                        "change": f"comparison {n}: question changed" if n == 1 else "",
                        "statuses": {"ok": 40},
                        **decided[str(n)],
                        "examples": [{"winner": name, **example} for name in "xxyy"],
                    }
                    for n in range(principles)
                ],
                **changes,
            },
        }
    )


def test_every_view_says_what_was_edited_and_shows_hostile_text_as_text():
    made = figures(HOSTILE)
    rows = texts(principle_rows(made))
    assert rows[2][1] == "changed" and [row[4] for row in rows[1:]] == ["x", "y"]
    said = principle_sentences(made)
    assert said[0].startswith("Under 2 of 2 principles the models part") and "(x is ahead), 1 " in said[0]
    assert "(changed; question changed): y is ahead" in said[1] and said[1].startswith("Edited: ")
    assert "also edited: " in said[-1]
    page, artifact = html(comparison_page(made)), markdown(artifact_page(made))
    for view in (page, artifact):
        assert "<script" not in view
        assert "Where the models part" in view and "alert" in view
    assert "![x](" not in artifact and "\x1b" not in artifact
    assert page.count("<details") == page.count("</details>") == 2
    assert page.index("1 &lt;/td") < page.index("preferred, 90%"), "edited principles come first"
    console = Console(file=io.StringIO(), width=400)
    terminal(artifact_page(made), console)
    shown = console.file.getvalue()
    assert "[bold]x[/]" in shown and "\x1b" not in shown and "\u202e" not in shown


def test_an_artifact_stays_small_and_says_what_it_left_out():
    made = figures("long & <b>" * 2000, principles=60)
    artifact = markdown(artifact_page(made))
    assert len(artifact.encode()) < 250_000
    assert len(example_section(made).folds) == 60
    assert html(comparison_page(made)).count("<details") == 60


def test_without_a_version_before_nothing_is_marked_and_that_is_said():
    made = figures("t", before=None)
    assert any("not known" in sentence for sentence in principle_sentences(made))
    after = {"ref": "t", "published": True, "digest": "1"}
    same = figures("t", before=after, after=after)
    assert any("belong to one constitution" in sentence for sentence in principle_sentences(same))
    plain = replace(made, by_principle=None)
    assert principle_sentences(plain) == [] and len(principle_rows(plain)) == 1
    assert "Where the models part" not in html(comparison_page(plain)) + markdown(artifact_page(plain))
