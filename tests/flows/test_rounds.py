"""Iterated RLAIF and relabelling on a random tiny model: what stops them, what they reuse, what a kill costs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.config.forms import RoundsRules, RunRequest
from flows.errors import FlowError
from flows.pipeline.launch import open_session
from flows.pipeline.relabel import Staleness, relabel
from flows.pipeline.rounds import Round, kept, run_rounds, why_stop
from flows.pipeline.session import Session
from flows.runs.directory import RunDirectory
from flows.runs.progress import Silent
from flows.runs.record import Outcome
from flows.stages.contract import Stage

ROOT = Path(__file__).parents[2]
RULES = RoundsRules(rounds=2, measure="reward", min_gain=-100)


@pytest.mark.parametrize(
    ("rules", "found", "reason"),
    [
        ({"rounds": 3}, {"gain": 0.1, "kl": 1.0}, None),
        ({"rounds": 2}, {"gain": 0.1, "kl": 1.0}, "all 2 rounds are done"),
        ({"rounds": 3}, {"gain": 0.0, "kl": 1.0}, "round 2 gained +0.000 in gold, not more than 0"),
        ({"rounds": 3, "min_gain": -0.1}, {"gain": -0.05, "kl": 1.0}, None),
        ({"rounds": 3}, {"gain": None, "kl": 1.0}, "round 2: no gold could be measured"),
        (
            {"rounds": 3, "kl_budget": 5},
            {"gain": 0.1, "kl": 5.25},
            "round 2 used up the KL budget: 5.25 of 5",
        ),
        ({"rounds": 3, "kl_budget": 5}, {"gain": 0.1, "kl": 4.9}, None),
    ],
)
def test_the_rules_that_stop(rules, found, reason):
    stopped = why_stop(RoundsRules(**rules), number=2, measure="gold", **found)
    assert stopped is None if reason is None else stopped.startswith(reason)


def test_the_last_policy_that_gained_is_kept():
    def made(number: int, gain: float) -> Round:
        return Round(number=number, outcomes={}, outputs={}, measure="gold", gain=gain, kl=0.0)

    rules = RoundsRules()
    assert kept([made(1, 0.1), made(2, 0.2), made(3, -0.1)], rules) == 2
    assert kept([made(1, -0.1)], rules) == 0


def in_turn(session: Session, stage: Stage) -> Outcome:
    return session.execute(stage)


def go(path: Path, *, rules: RoundsRules = RULES, changes=()) -> tuple[list[Round], str]:
    with open_session(RunRequest(config=str(path), changes=changes), Silent()) as session:
        return run_rounds(session, rules, execute=in_turn, on_round=lambda done: None)


@pytest.fixture(scope="module")
def two_rounds(tmp_path_factory, make_run, tiny_model):
    """Two rounds, killed in the middle of the second one's training and started again: (config, rounds, kill)."""
    os.environ["OMP_NUM_THREADS"] = "1"
    path = make_run(tmp_path_factory.mktemp("rounds"), tiny_model, demonstrations=None)
    directory = path.parent / "runs" / "tiny"
    process = subprocess.Popen([sys.executable, "-c", _GO, str(path)], cwd=ROOT)
    deadline = time.monotonic() + 240
    while len(list(directory.glob("rl/*/model/metrics.jsonl"))) < 2 and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    at_the_kill = {p.parent.name: p.stat().st_mtime_ns for p in directory.glob("*/*/manifest.json")}
    done, stop = go(path)
    return path, done, stop, at_the_kill


_GO = """
import sys
sys.path.insert(0, "tests/flows")
from test_rounds import go
from pathlib import Path
go(Path(sys.argv[1]))
"""


@pytest.mark.slow
def test_a_killed_round_goes_on_where_it_was(two_rounds):
    path, done, stop, at_the_kill = two_rounds
    directory = path.parent / "runs" / "tiny"
    assert stop == "all 2 rounds are done" and [r.number for r in done] == [1, 2]
    assert all(o.reused for o in done[0].outcomes.values()), "round 1 is not run again"
    assert done[1].outcomes["pairs"].reused and done[1].outcomes["labels"].reused
    assert not done[1].outcomes["rl"].reused
    now = {p.parent.name: p.stat().st_mtime_ns for p in directory.glob("*/*/manifest.json")}
    assert at_the_kill.items() <= now.items()
    assert go(path)[0][1].outcomes["gain"].reused, "and the whole of it is not run again either"


@pytest.mark.slow
def test_each_round_starts_from_the_policy_before_it(two_rounds):
    path, (first, second), _, _ = two_rounds
    policy = first.outputs[("rl", "model")].digest
    assert second.outcomes["pairs"].manifest.inputs["model"].digest == policy
    learnt = second.outcomes["reward_model"].manifest.inputs
    assert learnt["preferences_1"].digest == first.outputs[("labels", "preferences")].digest
    assert learnt["preferences"].digest == second.outputs[("labels", "preferences")].digest
    trained = second.outcomes["rl"].manifest.inputs
    assert trained["model"].digest == policy
    assert trained["reference"].digest == first.outputs[("sl_cai", "model")].digest
    compared = second.outcomes["gain"].manifest.inputs
    assert compared["before"].digest == policy
    assert compared["after"].digest == second.outputs[("rl", "model")].digest
    assert first.outcomes["pairs"].manifest.config["seed"] != second.outcomes["pairs"].manifest.config["seed"]
    record = json.loads((path.parent / "runs" / "tiny" / "rounds.json").read_text())
    assert [r["round"] for r in record["rounds"]] == [1, 2] and record["stop"] == "all 2 rounds are done"
    for found in record["rounds"]:
        assert 0 <= found["win_rate"]["value"] <= 1 and found["win_rate"]["n"] == 8
        assert found["gold"] is None and found["gain"] == found["reward"]["value"]


@pytest.mark.slow
def test_too_few_labels_are_a_failure_at_first_and_a_reason_to_stop_later(two_rounds):
    path, done, _, _ = two_rounds
    with pytest.raises(FlowError, match=r"^labels: \d+ of \d+ may train"):
        go(path, changes=("labels.mass_threshold=1.0", "labels.min_usable=1.0"))
    assert done[0].stop is None


@pytest.mark.slow
def test_the_kl_budget_is_the_trainers_leash_too(two_rounds):
    path, _, _, _ = two_rounds
    rules = RULES.model_copy(update={"kl_budget": 1e-9})
    done, stop = go(path, rules=rules)
    # Few and short answers: what is measured of so small a step may come out below zero.
    spent = done[0].kl >= 1e-9
    assert not spent or (len(done) == 1 and stop.startswith("round 1 used up the KL budget"))
    assert done[0].outcomes["rl"].manifest.config["knobs"]["max_kl"] == 1e-9


@pytest.mark.slow
def test_relabelling_asks_for_what_is_stale_and_for_nothing_else(two_rounds):
    path, _, _, _ = two_rounds
    go(path)  # the labels of the run are those of its own constitution
    edited = path.parent / "edited.yaml"
    text = (path.parent / "tiny.yaml").read_text()
    edited.write_text(text.replace("Which is shorter?", "Which is longer?"))
    plans: list[Staleness] = []
    asked: list[Outcome] = []

    def execute(session: Session, stage: Stage) -> Outcome:
        assert plans, "the plan comes first"
        asked.append(session.execute(stage))
        return asked[-1]

    request = RunRequest(config=str(path), constitution=str(edited))
    with open_session(request, Silent()) as session:
        line = relabel(session, execute=execute, on_plan=plans.append)
    [labels] = asked
    metrics, plan = labels.manifest.metrics, plans[0].plan
    assert labels.stage == "labels" and metrics["asked"] == plan.calls
    assert metrics["pairs"] - metrics["labels_reused"] == plan.labels.stale
    assert f"{plan.labels.stale} of {metrics['pairs']} labels were stale" in line
    # Again: now nothing is.
    with open_session(request, Silent()) as session:
        assert "no label is stale" in relabel(session, execute=execute, on_plan=plans.append)
    assert len(asked) == 1


@pytest.mark.slow
def test_a_changed_critique_principle_leaves_the_pairs_and_says_so(two_rounds):
    path, _, _, _ = two_rounds
    edited = path.parent / "both.yaml"
    text = (path.parent / "tiny.yaml").read_text()
    edited.write_text(text.replace("Is it safe?", "Is it quite safe?").replace("Which is kinder?", "Kinder?"))
    before = set((path.parent / "runs" / "tiny" / "pairs").iterdir())
    with open_session(RunRequest(config=str(path), constitution=str(edited)), Silent()) as session:
        line = relabel(session, execute=in_turn, on_plan=lambda found: None)
    assert "were stale" in line and "its critique principles changed too" in line
    assert set((path.parent / "runs" / "tiny" / "pairs").iterdir()) == before


@pytest.mark.slow
def test_without_labels_nothing_is_stale(tmp_path, make_run, tiny_model):
    path = make_run(tmp_path, tiny_model)
    with open_session(RunRequest(config=str(path)), Silent()) as session:
        line = relabel(session, execute=in_turn, on_plan=lambda found: None)
    assert line.endswith("tiny has no labels yet, so none is stale")
    assert [a.status for a in RunDirectory(path.parent / "runs" / "tiny").attempts()] == ["finished"]
