"""`charter plan`: what it foretells is what a run then takes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from constitution import load
from flows.config import load_config
from flows.config.forms import RunRequest
from flows.labelling.judge import label_settings, make_judge
from flows.pipeline.forecast.judge import JudgeForecaster
from flows.pipeline.forecast.plan import plan_run
from flows.pipeline.launch import open_session, run_stages
from flows.runs.progress import Silent
from flows.stages.contract import Stage
from flows.stages.registry import STAGES
from judges import Ledger, Pair, Reading, label_pairs


def forecast(path: Path, *changes: str, **more):
    config = load_config(path, changes)
    return plan_run(config, load(config.constitution), **more)


def of(found, stage: str):
    return next(s for s in found.stages if s.stage == stage)


def test_every_stage_has_a_forecast():
    default = Stage.__dataclass_fields__["forecast"].default
    assert all(stage.forecast is not default for stage in STAGES)


def test_a_plan_counts_and_writes_nothing(make_run, tiny_model, tmp_path):
    path = make_run(tmp_path, tiny_model)
    found = forecast(path, "labels.principles=2", judgements_per_second=4.0)
    # 8 prompts, 2 harmless ones; two revisions, each a critique and a revision; two answers a pair.
    assert of(found, "critique_revision").samples == 10 + 2 * 2 * 8
    assert of(found, "pairs").samples == 16
    labels = of(found, "labels")
    assert labels.judgements == 8 * 2 * 2 and labels.judge_hours == pytest.approx(32 / 4 / 3600)
    assert of(found, "helpful_sft").steps == 1 and of(found, "sl_cai").steps == 4
    assert of(found, "rl").samples == 2 * 4 and of(found, "rl").sampled_tokens == 2 * 4 * 8
    assert all(stage.disk_bytes > 0 for stage in found.stages)
    assert not (tmp_path / "runs").exists()


def test_a_rationale_is_read_twice(make_run, tiny_model, tmp_path):
    path = make_run(tmp_path, tiny_model)
    default = "labels.templates=default"
    plain = of(forecast(path, default), "labels")
    thoughtful = of(forecast(path, default, "labels.rationales=2", "labels.rationale_tokens=50"), "labels")
    assert thoughtful.judgements == 2 * plain.judgements
    assert thoughtful.judge_completion_tokens == thoughtful.judgements * 51
    # The question with its instruction to think, then question and thought again before the letter.
    assert thoughtful.judge_prompt_tokens > 2 * (2 * plain.judge_prompt_tokens + plain.judgements * 50)


def test_nobody_knows_the_speed_of_a_judge_that_was_never_asked(make_run, tiny_model, tmp_path):
    found = forecast(make_run(tmp_path, tiny_model))
    assert found.speed is None and of(found, "labels").judge_hours is None


def test_a_probe_measures_and_keeps_nothing(make_run, tiny_model, tmp_path):
    found = forecast(make_run(tmp_path, tiny_model), measure=True)
    assert found.speed.per_second > 0 and "measured now" in found.speed.source
    assert of(found, "labels").judge_hours == pytest.approx(16 / found.speed.per_second / 3600)
    assert not (tmp_path / "runs").exists()


def test_the_command_says_it_in_a_table_and_in_json(make_run, tiny_model, tmp_path):
    path = make_run(tmp_path, tiny_model)
    command = [str(Path(sys.executable).with_name("charter")), "plan", "--config", str(path)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    assert "speed unknown; give --judgements-per-second, or --measure it" in shown
    assert max(map(len, shown.splitlines()[:12])) <= 80 and "…" not in shown
    told = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True, timeout=120)
    plan = json.loads(told.stdout)
    assert plan["total"]["judgements"] == 16 and plan["speed"] is None
    wrong = subprocess.run([*command, "--set", "rl.stepz=3"], capture_output=True, text=True, timeout=120)
    assert wrong.returncode == 2 and "did you mean steps?" in wrong.stderr


@pytest.mark.slow
def test_what_was_foretold_is_what_a_run_takes(make_run, tiny_model, tmp_path):
    """Judgements to the one; samples exactly or at most; tokens and bytes, of short answers, within a factor of 3."""
    path = make_run(tmp_path, tiny_model)
    before = forecast(path)
    with open_session(RunRequest(config=str(path)), Silent()) as session:
        run_stages(session, to_stage="reward_model")
        # With the pairs there, but no label yet of another seed's draw: counted on the pairs themselves.
        made = {name: outcome.manifest.metrics for name, outcome in session.outcomes.items()}
        sizes = {
            name: sum(p.stat().st_size for p in outcome.directory.rglob("*") if p.is_file())
            for name, outcome in session.outcomes.items()
        }
        ledger = (session.directory.path / "ledger.db").stat().st_size
        taken = {
            name: json.loads((session.outcomes[name].directory / "model" / "result.json").read_text())[
                "steps"
            ]
            for name in ("helpful_sft", "sl_cai", "reward_model")
        }
    assert of(before, "labels").judgements == 2 * made["pairs"]["pairs"] == made["labels"]["asked"]
    assert made["labels"]["prompt_tokens"] / 3 < of(before, "labels").judge_prompt_tokens
    assert of(before, "labels").judge_prompt_tokens < 3 * made["labels"]["prompt_tokens"]
    for stage in ("helpful_sft", "sl_cai", "reward_model"):
        assert of(before, stage).steps >= taken[stage], stage
        assert sizes[stage] / 3 < of(before, stage).disk_bytes < 3 * sizes[stage], stage
    for stage in ("prompts", "critique_revision", "pairs"):
        assert sizes[stage] / 3 < of(before, stage).disk_bytes < 3 * sizes[stage], stage
    assert ledger > 0
    again = forecast(path)
    assert {s.stage for s in again.stages if s.state == "reused"} == set(made)
    assert again.speed is not None and "ledger" in again.speed.source
    # Another margin counts the same judgements anew: all of them are in the ledger.
    margins = of(forecast(path, "labels.tie_margin=0.2"), "labels")
    assert (margins.judgements, margins.known_judgements) == (0, made["labels"]["asked"])


def test_of_what_the_serving_made_fail_one_call_a_cause_is_foretold_and_asked(make_run, tiny_model, tmp_path):
    class Short:
        """The configured judge behind a context that is too short."""

        def __init__(self, judge):
            self.judge, self.identity = judge, judge.identity

        def ask(self, calls):
            return [Reading(status="truncated", detail="too long", cause="context 20") for _ in calls]

    config = load_config(make_run(tmp_path, tiny_model))
    constitution, settings = load(config.constitution), label_settings(config)
    url = f"sqlite:///{tmp_path}/ledger.db"
    pairs = [
        Pair(id=f"p{n}", prompt=({"role": "user", "content": f"Why {n}?"},), a="So.", b="Because.")
        for n in range(5)
    ]
    judge = make_judge(config.judge)

    def asked(judge):
        with Ledger.open(url) as ledger:
            report = label_pairs(
                pairs, constitution=constitution, judge=judge, ledger=ledger, settings=settings
            )
        return report.asked

    def foretold():
        found = JudgeForecaster(config, constitution, ledger=url).of_pairs(pairs)
        return found.judgements, found.known

    assert foretold() == (10, 0) and asked(Short(judge)) == 10
    assert foretold() == (1, 10) and asked(Short(judge)) == 1
    assert asked(judge) == 10 and foretold() == (0, 10)
