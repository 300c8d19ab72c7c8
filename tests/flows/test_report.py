"""The report: says what the summary says, and shows model text as text."""

from __future__ import annotations

import copy
import io
import re

import pytest
from rich.console import Console

from common.sections import Measure, texts
from common.statistics import Estimate
from flows.report.data import Example, LabelChange, ReportData, Revision
from flows.report.findings import findings
from flows.report.run import examples_markdown, html, print_report, result_markdown, result_rows, write_html
from flows.report.summary import Summary

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[click](javascript:alert(1)) ![x](https://evil.invalid/x.png)",
    "</td></table></details><h1>gone</h1>",
    "{{ 7*7 }} {% raw %} ${1}",
    "| a | b |\n|---|---|\n# heading",
    "x" * 5000,
    "\x00\x1b[31mred\u202e",
    "[bold]rich markup[/bold] [/]",
]


def estimate(value, n=100):
    return {"value": value, "low": max(0.0, value - 0.05), "high": value + 0.05, "n": n}


def model(helpful, harmless, overall):
    gold = {
        "helpful": estimate(helpful),
        "honest": estimate(0.5),
        "harmless": estimate(harmless),
        "non_evasive": estimate(0.9),
        "benign_refusals": estimate(0.02),
        "overall": estimate(overall),
    }
    return {"gold": gold, "words": estimate(18.0), "reward": estimate(0.1)}


@pytest.fixture
def summary():
    return {
        "name": "demo",
        "seed": 0,
        "constitution": {"ref": "microworld@1.0.0", "digest": "ab" * 32, "published": True},
        "models": {
            "base": model(0.5, 0.3, 0.5),
            "helpful_only": model(0.9, 0.0, 0.5),
            "sl_cai": model(0.85, 0.6, 0.7),
            "rl_cai": model(0.9, 0.98, 0.9),
        },
        "judge": {"trained_wordings": estimate(0.97), "statuses": {"ok": 90, "tie": 8, "inconsistent": 2}},
        "revision": {"benign_kept": estimate(0.9)},
        "reward_model": {},
        "rl": {
            "curve": [
                {"step": i, "proxy": i / 10, "gold": 0.7 + i / 100, "kl": i / 3, "length": 18.0, "n": 96}
                for i in range(10)
            ]
        },
        "stages": {
            "labels": {"key": "k", "reused": False, "seconds": 20.0, "metrics": {}},
            "sl_cai": {"key": "k", "reused": True, "seconds": 13.0, "metrics": {}},
        },
        "seconds": 123.4,
        "peak_memory_bytes": 2_000_000_000,
    }


def data_of(summary, **more):
    return ReportData(summary=Summary.from_json(summary), **more)


def hostile_data(summary, **more):
    examples = [
        Example(prompt=text, family=text, answers={m: text for m in summary["models"]}) for text in HOSTILE
    ]
    revisions = [Revision(prompt=t, response=t, steps=[(t, t, t)]) for t in HOSTILE]
    return data_of(summary, examples=examples, revisions=revisions, config_text=HOSTILE[0], **more)


def test_tables_and_findings_say_what_the_summary_says(summary):
    data = data_of(summary)
    rows = texts(result_rows(data))
    assert rows[0] == [
        "model", "helpful", "honest", "harmless", "non-evasive", "benign refused", "gold overall", "words", "reward",
    ]  # fmt: skip
    assert rows[4][:4] == ["RL-CAI", "90 (85-95)", "50 (45-55)", "98 (93-103)"]
    said = " ".join(findings(data))
    assert "0% helpful-only, 60% SL-CAI, 98% RL-CAI" in said
    assert "refuses 2% of them" in said
    assert "90 of 100 labels are ok; 8 tie, 2 inconsistent." in said and "clear winner" not in said
    summary["judge"] |= {"clear": 40, "order_flips": 30}
    said = " ".join(findings(data_of(summary)))
    assert "40 of 100 pairs have a clear winner" in said and "in 30 the order of the answers decides." in said
    assert "1 of 2 stages were reused: sl_cai." in said and "Warning" not in said
    summary["judge"] |= {"clear": 0, "order_flips": 90}
    assert findings(data_of(summary))[0].startswith(
        "Warning: in 90 of 100 pairs the order of the answers decides"
    )


def test_an_interval_below_zero_has_no_two_signs_in_a_row():
    assert str(Measure(Estimate(value=-0.3, n=9, low=-0.4, high=-0.2))) == "-0.3 (-0.4 to -0.2)"
    assert str(Measure(Estimate(value=0.3, n=9, low=0.2, high=0.4))) == "0.3 (0.2-0.4)"


def test_a_run_without_gold_has_a_report_too(summary):
    for record in summary["models"].values():
        del record["gold"]
    for point in summary["rl"]["curve"]:
        del point["gold"]
    data = hostile_data(summary)
    assert result_rows(data)[0] == ["model", "words", "reward"]
    assert "<svg" in html(data)
    assert result_markdown(data)


def test_without_gold_nothing_is_called_gold(summary):
    data = data_of(summary)
    out = io.StringIO()
    print_report(data, Console(file=out, width=200))
    texts = [html(data), result_markdown(data).replace("\\", ""), out.getvalue()]
    assert all("Answers to held-out prompts: gold scores in %" in text for text in texts)
    for record in summary["models"].values():
        del record["gold"]
    data = data_of(summary)
    out = io.StringIO()
    print_report(data, Console(file=out, width=200))
    texts = [html(data), result_markdown(data).replace("\\", ""), out.getvalue()]
    assert all("Answers to held-out prompts: words and the reward" in text for text in texts)
    assert not any("gold scores" in text.lower() for text in texts)


def watched(summary, golds, **metrics):
    rows = [
        {"step": 4 * n, "proxy": n / 2, "gold": g, "n": 64, "kl": n * 1.5, "root_kl": (n * 1.5) ** 0.5, "fallen": False}
        for n, g in enumerate(golds)
    ]  # fmt: skip
    summary["rl"] |= {"brake": rows, "last_step": rows[-1]["step"], **metrics}
    return data_of(summary)


def test_the_report_says_what_early_stopping_did(summary):
    golds = (0.7, 0.8, 0.9, 0.85, 0.75, 0.7)
    data = watched(summary, golds, kept_step=8, braked=1.0)
    said = (
        "Over-optimisation: held-out gold fell from 0.900 to 0.700 while the proxy climbed from 1.00 to 2.50; the "
        "run was stopped after step 20 and the policy of step 8 was kept."
    )
    assert said in findings(data)
    page, artifact = html(data), result_markdown(data)
    assert page.count("<svg") == 3 and "What early stopping saw on held-out prompts" in page
    assert "kept: step 8" in page and "fit of Gao et al." in page and "its peak is at d = " in page
    assert artifact.count("data:image/png") == 3 and "run was stopped after step 20" in artifact
    assert len(artifact.encode()) < 250_000
    data = watched(summary, golds, kept_step=8, braked=0.0)
    assert "; the run ended after step 20 and the policy of step 8 was kept." in " ".join(findings(data))


def test_the_report_says_that_early_stopping_did_nothing(summary):
    data = watched(summary, (0.7, 0.8), kept_step=4, braked=0.0)
    assert any(
        s.startswith("Early stopping watched 2 evaluations and did not stop the run: ")
        for s in findings(data)
    )
    assert "fit of Gao" not in html(data) and "kept: step 4" in html(data)


def test_the_report_says_whose_verdicts_are_gold(summary):
    people = {"pairs": 412, "people": 3, "accuracy": {"value": 0.707, "low": 0.601, "high": 0.795, "n": 82}}
    for golds, kept in (((0.7, 0.8), 4), ((0.9, 0.8), 0)):
        data = watched(summary, golds, kept_step=kept, braked=0.0, gold_model=people)
        assert (
            "Gold is a model of people's verdicts: 412 pairs by 3 people, right about 71% (60 to 80) of 82 held-out "
            "ones."
        ) in findings(data)
    assert "gold (mean of the model of people" in html(data)


def test_before_and_after_leave_out_rewards_of_two_scales(summary):
    before = copy.deepcopy(summary)
    summary["models"]["rl_cai"]["words"] = estimate(24.0)
    summary["constitution"]["ref"] = "microworld-detailed@1.0.0"
    change = LabelChange(pairs=100, flipped=20, moved=30)
    data = data_of(summary, before=Summary.from_json(before), label_change=change)
    artifact = result_markdown(data)
    changed = artifact[artifact.index("What the edited constitution changed") :].partition("##")[0]
    assert "| words | 18\\.0 \\(17\\.9\\-18\\.1\\) | 24\\.0" in changed and "\\+6\\.0 |" in changed
    assert "reward" not in changed
    assert "20 of 100 shared pairs changed" in " ".join(findings(data))


def test_model_text_is_text_in_html(summary, tmp_path):
    page = write_html(hostile_data(summary), tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "<img" not in page
    assert page.count("</h1>") == 1
    assert "{{ 7*7 }}" in page
    assert "default-src 'none'" in page
    assert not list(tmp_path.glob("*.tmp"))


def test_plots_take_the_pages_colour_and_load_nothing(summary):
    page = html(data_of(summary))
    assert page.count("<svg") == 2
    assert "currentColor" in page and "#010203" not in page
    assert not re.search(r"(src|href)=[\"']https?:", page)


def test_artifacts_are_inert_markdown_within_prefects_limits(summary):
    data = hostile_data(summary)
    result, walk = result_markdown(data), examples_markdown(data)
    for text in (result, walk):
        assert len(text.encode()) < 250_000
        assert "<script" not in text and "<img" not in text and "](javascript" not in text
    assert walk.count("<details>") == walk.count("</details>") == 2 * len(HOSTILE) - 4
    assert "data:image/png;base64," in result


def test_the_terminal_shows_hostile_text_as_it_is(summary):
    out = io.StringIO()
    print_report(hostile_data(summary), Console(file=out, width=200))
    assert "RL-CAI" in out.getvalue() and "123 s in all" in out.getvalue()
