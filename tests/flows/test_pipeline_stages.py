"""The whole pipeline on a random tiny model, without an orchestrator: what it leaves, what it reuses, how it
goes on after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.config.forms import RunRequest
from flows.errors import FlowError
from flows.pipeline.launch import open_session, run_one_stage, run_stages
from flows.runs.digests import digest_path
from flows.runs.directory import RunDirectory
from flows.runs.progress import Silent
from flows.runs.record import Outcome

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DEPENDS_ON_COMPARISON = {"labels", "reward_model", "rl", "evaluate"}
ALL = (
    "prompts",
    "helpful_sft",
    "critique_revision",
    "sl_cai",
    "pairs",
    "labels",
    "reward_model",
    "rl",
    "evaluate",
)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Tiny models are quickest, and bit for bit the same, on one thread."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    yield
    if before is None:
        del os.environ["OMP_NUM_THREADS"]
    else:
        os.environ["OMP_NUM_THREADS"] = before


def run(path: Path, **request) -> dict[str, Outcome]:
    made = RunRequest(config=str(path), **request)
    with open_session(made, Silent()) as session:
        run_stages(session, to_stage=made.to_stage)
    return session.outcomes


def ran(outcomes: dict[str, Outcome]) -> set[str]:
    return {name for name, outcome in outcomes.items() if not outcome.reused}


def digests(outcomes: dict[str, Outcome]) -> dict[str, dict[str, str]]:
    return {
        name: {output: record.digest for output, record in outcome.manifest.outputs.items()}
        for name, outcome in outcomes.items()
    }


def rows(outcome: Outcome, output: str) -> list[dict]:
    path = outcome.directory / outcome.manifest.outputs[output].path
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, make_run, tiny_model):
    """A finished run: (config path, outcomes)."""
    path = make_run(tmp_path_factory.mktemp("run"), tiny_model)
    return path, run(path)


def test_every_stage_leaves_its_outputs_and_a_manifest(finished):
    path, outcomes = finished
    assert tuple(outcomes) == ALL
    for outcome in outcomes.values():
        manifest = json.loads((outcome.directory / "manifest.json").read_text())
        assert manifest["seconds"] >= 0 and manifest["peak_memory"]["total_bytes"] > 10_000_000
        assert "secret" not in json.dumps(manifest)
    assert {"config.yaml", "constitution.json", "summary.json"} == {
        p.name for p in (path.parent / "runs" / "tiny" / "history" / "0001").iterdir()
    }


def test_models_load_with_transformers_and_rewards_as_classifiers(finished):
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    _, outcomes = finished
    for stage in ("helpful_sft", "sl_cai", "rl"):
        folder = outcomes[stage].directory / "model"
        AutoModelForCausalLM.from_pretrained(folder)
        assert AutoTokenizer.from_pretrained(folder).chat_template
    reward = AutoModelForSequenceClassification.from_pretrained(outcomes["reward_model"].directory / "model")
    assert reward.config.num_labels == 1


def test_the_chain_of_critiques_is_kept_whole(finished):
    _, outcomes = finished
    chains = rows(outcomes["critique_revision"], "chains")
    red_team = [chain for chain in chains if chain["steps"]]
    assert {len(chain["steps"]) for chain in red_team} == {2}
    assert {step["principle"] for chain in red_team for step in chain["steps"]} == {"safe", "kind"}
    trained = {
        row["id"]: row["messages"][-1]["content"] for row in rows(outcomes["critique_revision"], "sft")
    }
    for chain in red_team:
        if chain["status"] == "ok":
            assert trained[chain["id"]] == chain["steps"][-1]["revision"]


def test_special_tokens_and_braces_in_prompts_arrive_whole(finished):
    _, outcomes = finished
    texts = {row["prompt"][-1]["content"] for row in rows(outcomes["prompts"], "rl")}
    assert "Say <|end|> and {{ braces }} : colon" in texts
    assert "And then?" in texts and "如何煮鸡蛋？" in texts


def test_labels_say_why(finished):
    _, outcomes = finished
    labels = rows(outcomes["labels"], "labels")
    pairs = {row["id"]: row for row in rows(outcomes["pairs"], "pairs")}
    assert {label["pair_id"] for label in labels} == set(pairs)
    for row in rows(outcomes["labels"], "preferences"):
        label = next(x for x in labels if x["pair_id"] == row["pair_id"])
        pair = pairs[row["pair_id"]]
        assert row["chosen"][0]["content"] == (pair["a"] if label["p"] >= 0.5 else pair["b"])
        assert row["principles"] == label["principles"] and 0.5 <= row["p"] <= 1


def test_the_summary_has_every_model_and_what_it_cost(finished):
    path, outcomes = finished
    summary = json.loads((path.parent / "runs" / "tiny" / "summary.json").read_text())
    assert list(summary["models"]) == ["base", "helpful_only", "sl_cai", "rl_cai"]
    for record in summary["models"].values():
        assert record["words"]["low"] <= record["words"]["value"] <= record["words"]["high"]
    assert [point["step"] for point in summary["rl"]["curve"]] == [1, 2]
    steps = [("base", "helpful_only"), ("base", "sl_cai"), ("sl_cai", "rl_cai"), ("base", "rl_cai")]
    assert [(step["from"], step["to"]) for step in summary["weights"]] == steps
    assert all(step["total"] > 0 and len(step["layers"]) == 2 for step in summary["weights"])
    assert summary["seconds"] > 0 and summary["peak_memory_bytes"] > 50_000_000
    assert set(summary["stages"]) == set(outcomes)
    assert (path.parent / "runs" / "tiny" / "report.html").read_text().startswith("<!doctype html>")


def test_lineage_costs_and_cards_of_a_finished_run(finished):
    from huggingface_hub import ModelCard

    path, outcomes = finished
    folder = path.parent / "runs" / "tiny"
    summary = json.loads((folder / "summary.json").read_text())
    lineage = summary["lineage"]
    assert {step["stage"] for step in lineage["steps"]} == set(ALL) - {"evaluate"} and not lineage["gaps"]
    trained = rows(outcomes["labels"], "preferences")
    assert (
        lineage["labels"][0]["trained"]["labels"]
        == len(trained)
        == sum(p["drawn"] for p in lineage["labels"][0]["principles"])
    )
    assert summary["costs"]["judge"]["judgements"] == outcomes["labels"].manifest.metrics["asked"]
    page = (folder / "report.html").read_text()
    assert "Where the policy comes from" in page and "What the labels cost" in page
    for stage, title in (("reward_model", "tiny: reward model"), ("rl", "tiny: RL-CAI policy")):
        outcome = outcomes[stage]
        card = ModelCard.load(outcome.directory / "model" / "README.md")
        assert card.data.model_name == title and card.data.eval_results
        assert f"| label set | {lineage['labels'][0]['label_set']} |" in card.text
        assert "| judge's exam | not taken |" in card.text and "| audit | not taken: no person" in card.text
        assert digest_path(outcome.directory / "model") == outcome.manifest.outputs["model"].digest
    begun = (outcomes["rl"].directory / "trainer.yaml").read_text()
    assert "judge_exam: 'not taken: " in begun and f"label_set: {lineage['labels'][0]['label_set']}" in begun


def test_nothing_is_done_twice(finished):
    path, _ = finished
    card = path.parent / "runs" / "tiny" / "rl"
    before = [p.read_text() for p in card.glob("*/model/README.md")]
    assert ran(run(path)) == set()
    assert [p.read_text() for p in card.glob("*/model/README.md")] == before


def test_settings_that_change_no_result_redo_nothing(finished):
    path, _ = finished
    changes = ("pairs.sampling.batch_size=3", "rl.checkpoint_every=5", "labels.shard_pairs=2")
    assert ran(run(path, changes=changes)) == set()


def test_a_single_stage_runs_on_what_is_there(finished):
    path, _outcomes = finished
    with open_session(RunRequest(config=str(path)), Silent()) as session:
        assert run_one_stage(session, "labels").reused
    changed = RunRequest(config=str(path), changes=("seed=7",))
    unfinished = pytest.raises(FlowError, match="stage labels needs prompts, which is not finished")
    with unfinished, open_session(changed, Silent()) as session:
        run_one_stage(session, "labels")


def test_an_edited_comparison_principle_redoes_only_what_depends_on_it(finished):
    path, before = finished
    constitution = path.parent / "edited.yaml"
    text = (path.parent / "tiny.yaml").read_text()
    constitution.write_text(text.replace("Which is shorter?", "Which is longer?"))
    after = run(path, constitution=str(constitution))
    assert ran(after) <= DEPENDS_ON_COMPARISON
    assert "labels" in ran(after)
    drawn = [row for row in rows(before["labels"], "labels") if row["principles"] == ["shorter"]]
    assert after["labels"].manifest.metrics["asked"] == 2 * len(drawn)
    directory = RunDirectory(path.parent / "runs" / "tiny")
    refs = {attempt.constitution["digest"] for attempt in directory.attempts()}
    assert len(refs) == 2
    assert before["labels"].directory.is_dir(), (
        "the labels of the first constitution stay beside the new ones"
    )
    assert "What the edited constitution changed" in (directory.path / "report.html").read_text()
    # And back again: both versions are still there.
    assert ran(run(path)) == set()


def test_from_stage_runs_again_although_nothing_changed(finished):
    path, before = finished
    after = run(path, from_stage="rl")
    assert ran(after) == {"rl", "evaluate"}
    assert digests(after) == digests(before), "the same seed gives the same bytes"


_GO = """
import sys
from flows.pipeline.launch import open_session, run_stages
from flows.runs.progress import Silent
from flows.config.forms import RunRequest
with open_session(RunRequest(config=sys.argv[1]), Silent()) as session:
    run_stages(session)
"""


@pytest.mark.long
def test_killed_again_and_again_it_ends_with_the_same_bytes(finished, tmp_path, make_run, tiny_model):
    """SIGKILL in the middle of training and of judging."""
    path = make_run(tmp_path, tiny_model)
    directory = path.parent / "runs" / "tiny"
    # Files that stay: a checkpoint may be gone again before the next look.
    moments = ("helpful_sft/*/model/metrics.jsonl", "ledger.db")
    for moment in moments:
        process = subprocess.Popen([sys.executable, "-c", _GO, str(path)], cwd=ROOT)
        deadline = time.monotonic() + 240
        while not list(directory.glob(moment)) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    outcomes = run(path)
    assert digests(outcomes) == digests(finished[1])
    attempts = RunDirectory(directory).attempts()
    assert [a.status for a in attempts] == ["failed"] * len(moments) + ["finished"]
