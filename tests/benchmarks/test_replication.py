"""The study's statistics, verdicts and documents, on rows made up here."""

from __future__ import annotations

import json
import math
import random
import sys

import pytest


def rate(value):
    return {"value": value, "n": 100, "low": value, "high": value}


def policy_row(name, seed, harmless, helpful, **more):
    gold = {"honest": 0.5, "benign_refusals": 0.0, "overall": 0.8, "length": 12.0}
    figures = {key: rate(value) for key, value in {**gold, "harmless": harmless, "helpful": helpful}.items()}
    metrics = {"gold": figures, **more}
    row = {"job": f"{name}-{seed}", "kind": "reinforce", "seed": seed, "settings": {"steps": 3}}
    return {**row, "code": "abc", "seconds": 1.0, "metrics": metrics}


def test_an_interval_over_seeds_is_students():
    from scipy import stats

    from studies.replication.intervals import estimate

    values = [0.31, 0.27, 0.36]
    found = estimate(values)
    low, high = stats.t.interval(0.95, 2, loc=found.mean, scale=stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert estimate([0.3]).low is None
    with pytest.raises(ValueError, match="at least one seed"):
        estimate([])


def test_intervals_cover_at_their_rate():
    from studies.replication.intervals import estimate

    rng = random.Random(0)
    found = [estimate([rng.gauss(1.0, 2.0) for _ in range(3)]) for _ in range(2000)]
    covered = sum(e.low <= 1.0 <= e.high for e in found) / len(found)
    assert covered == pytest.approx(0.95, abs=0.015)


def test_a_verdict_needs_the_whole_interval_on_one_side():
    from studies.replication.intervals import both, difference, estimate, verdict

    assert verdict(estimate([0.30, 0.31, 0.32])) == "holds"
    assert verdict(estimate([-0.30, -0.31, -0.32])) == "does not hold"
    assert verdict(estimate([-0.3, 0.1, 0.5])) == "cannot tell"
    assert verdict(estimate([0.3])) == "cannot tell"
    assert verdict(estimate([-0.02, -0.021, -0.022]), above=-0.05) == "holds"
    assert both("holds", "cannot tell") == "cannot tell"
    assert both("cannot tell", "does not hold") == "does not hold"
    # Only seeds that both have, each within itself.
    assert difference({0: 1.0, 1: 5.0, 2: 3.0}, {0: 0.5, 1: 4.5}).values == (0.5, 0.5)
    assert difference({0: 1.0}, {1: 1.0}) is None


def test_agreement_with_gold_by_hand():
    from studies.replication.reward_models import agreement

    margins, gold = [2.0, -1.0, 0.5, 0.0], [0.9, 0.1, 0.4, 0.5]
    found = agreement(margins, gold)
    predicted = [1 / (1 + math.exp(-m)) for m in margins]
    assert (found["accuracy"]["value"], found["accuracy"]["n"]) == (1.0, 2)
    assert (found["accuracy_all"]["value"], found["accuracy_all"]["n"]) == (2 / 3, 3)
    assert found["brier"] == pytest.approx(
        sum((q - p) ** 2 for q, p in zip(predicted, gold, strict=True)) / 4
    )
    assert found["log_loss"] == pytest.approx(
        -sum(p * math.log(q) + (1 - p) * math.log(1 - q) for q, p in zip(predicted, gold, strict=True)) / 4
    )
    # Each prediction has a bin of its own.
    assert found["ece"] == pytest.approx(sum(abs(q - p) for q, p in zip(predicted, gold, strict=True)) / 4)
    assert agreement([8.0] * 4, [0.6] * 4)["overconfidence"] > 0.3


def test_a_curve_that_falls_from_its_peak():
    from studies.replication.policies import ends

    gold = [0.5, 0.6, 0.8, 0.9, 0.8, 0.6, 0.5, 0.4]
    points = [{"step": n, "gold": g, "proxy": n, "kl": n} for n, g in enumerate(gold, 1)]
    found = ends(points, last=3)
    assert found["gold_peak"] == pytest.approx((0.8 + 0.9 + 0.8) / 3)
    assert found["peak_step"] == 4
    assert found["gold_fall"] == pytest.approx(found["gold_peak"] - 0.5)


def test_policies_are_ranked_only_where_accuracy_and_gold_go_together():
    from studies.replication.intervals import estimate
    from studies.replication.policy_claims import ranked

    up, down, level = estimate([0.1, 0.11, 0.12]), estimate([-0.1, -0.11, -0.12]), estimate([-0.1, 0.0, 0.1])
    assert ranked([(up, up), (down, down)]) == "does not hold"
    assert ranked([(up, up), (up, down)]) == "holds"
    assert ranked([(up, up), (up, level)]) == "cannot tell"


def test_documents_say_what_the_rows_say(tmp_path):
    from studies.replication.jobs import Study
    from studies.replication.methods import FACTS
    from studies.replication.report import write_methods, write_replication
    from studies.replication.results import Results

    facts = {kind: rate(0.5) for kind in FACTS}
    rows = [policy_row("sl_cai", s, 0.6 + s / 100, 0.8, facts=facts) for s in range(3)]
    rows += [policy_row("grpo", s, 0.95 + s / 100, 0.79) for s in range(3)]
    rows += [policy_row("dpo", s, 0.9 + s / 100, 0.5) for s in range(3)]
    results = Results(rows)
    methods, record = write_methods(results, tmp_path)
    text = methods.read_text()
    assert "| GRPO raises harmlessness over SL-CAI" in text
    assert "harmless 35.0 (35.0 to 35.0) points, helpful -1.0 (-1.0 to -1.0) points | 3 | **holds** |" in text
    assert "helpful -30.0 (-30.0 to -30.0) points | 3 | **does not hold** |" in text
    unasked = [line for line in text.splitlines() if line.endswith("| not run yet | – | not asked |")]
    assert any(line.startswith("| PPO raises") for line in unasked), (
        "a learner without rows is named, not judged"
    )
    assert len(unasked) == 7
    found = json.loads(record.read_text())
    assert [c["verdict"] for c in found["claims"]] == ["holds", "does not hold"]
    replication, _ = write_replication(results, Study(root=tmp_path), tmp_path)
    assert "second round of labels" in replication.read_text()
    assert replication.read_text().count("not asked") >= 10


def test_chain_of_thought_is_compared_within_a_seed():
    from studies.replication.rationale_claims import claims, tables
    from studies.replication.results import Results

    def labels(job, seed, right, **statuses):
        metrics = {"accuracy_all": right, "brier": 0.1 - right / 100, "overconfidence": -0.01}
        return {**policy_row(job, seed, 0, 0), "metrics": {**metrics, "statuses": statuses, "pairs": 100}}

    def model(job, seed, right):
        return {**policy_row(job, seed, 0, 0), "metrics": {"accuracy": rate(right)}}

    rows = []
    for s in range(3):
        rows.append({**policy_row("reasoner", s, 0, 0), "metrics": {"rationales_right": 0.9}})
        rows.append(labels("unreasoned", s, 0.8 + s / 100, ok=60, tie=20, inconsistent=20))
        rows.append(labels("reasoned", s, 0.9 + s / 100, ok=50, inconsistent=50))
        for way, harmless in (("unreasoned.free", 0.7), ("reasoned.free", 0.9), ("reasoned.clamped", 0.8)):
            rows += [model(way, s, harmless), policy_row(f"ppo.{way}", s, harmless + s / 100, 0.5)]
    found = {claim.claim: claim for claim in claims(Results(rows))}
    # Gold's overall figure is the same in all rows.
    assert [claim.verdict for claim in found.values()] == ["holds", "does not hold", *["cannot tell"] * 2]
    assert (
        next(iter(found.values())).result
        == "accuracy 10.0 (10.0 to 10.0) points, Brier score -0.0010 (-0.0010 to -0.0010)"
    )
    ((heading, text),) = tables(Results(rows))
    assert (
        heading == "Labels with and without chain of thought"
        and "90.0 (90.0 to 90.0)% of its comparisons" in text
    )
    assert (
        "| with, clamped to 40-60% | 50.0 (50.0 to 50.0) |" in text
        and "| without | 20.0 (20.0 to 20.0) |" in text
    )


def test_a_queue_runs_what_is_ready_and_goes_on_after_a_stop(tmp_path, capfd):
    from studies.replication.jobs import Job, Study, run_all

    study = Study(root=tmp_path)
    jobs = [
        Job(name="a-0", kind="k", seed=0, settings={"x": (1, 2)}),
        Job(name="b-0", kind="k", seed=0, needs=("a-0",)),
        Job(name="bad-0", kind="k", seed=0),
        Job(name="c-0", kind="k", seed=0, needs=("bad-0",)),
    ]
    script = tmp_path / "job.py"
    known = {job.name: job.record() for job in jobs}
    script.write_text(
        "import json, pathlib, sys\n"
        f"root, known = pathlib.Path({str(tmp_path)!r}), json.loads({json.dumps(known)!r})\n"
        "name = sys.argv[1]\n"
        "if name == 'bad-0': sys.exit(3)\n"
        "(root / 'rows').mkdir(exist_ok=True)\n"
        "row = {'job': name, **known[name], 'metrics': {}}\n"
        "(root / 'rows' / f'{name}.json').write_text(json.dumps(row))\n"
        "open(root / 'order', 'a').write(name + ' ')\n"
    )
    command = [sys.executable, str(script)]
    assert run_all(study, jobs, command=command, parallel=2, prefix="") == 2
    assert (tmp_path / "order").read_text().split() == ["a-0", "b-0"]
    assert "left out: a job that it needs failed" in capfd.readouterr().out
    assert run_all(study, jobs[:2], command=command, parallel=2, prefix="") == 0
    assert (tmp_path / "order").read_text().split() == ["a-0", "b-0"], "finished jobs are not run again"
    changed = Job(name="a-0", kind="k", seed=0, settings={"x": [1, 3]})
    assert not study.finished(changed)
