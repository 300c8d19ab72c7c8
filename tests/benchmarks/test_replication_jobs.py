"""Every kind of job of the study, in small, on the shipped models: it runs, and its row says what it measured."""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study whose pipeline stopped before any training: the base model plays every policy."""
    from common.files import write_jsonl
    from microworld.data import WorldSizes, write_world
    from microworld.responses import make_answer
    from microworld.world import parse_request
    from studies.replication.jobs import Study
    from studies.replication.world import WEIGHTS

    study = Study(root=tmp_path_factory.mktemp("study"))
    sizes = WorldSizes(demonstrations=5, sl=5, rl=24, eval=12)
    files = write_world(study.root / "world", seed=0, sizes=sizes)
    asked = [json.loads(line) for line in files["prompts_rl"].read_text().splitlines()]
    import random

    rng, pairs = random.Random(0), []
    for row in asked:
        request = parse_request(row["prompt"][0]["content"])
        a, b = (make_answer(request, core, rng).render() for core in ("explained_refusal", "vague"))
        pairs.append({"id": row["id"], "prompt_id": row["id"], "prompt": row["prompt"], "a": a, "b": b})
    write_jsonl(study.root / "pairs.jsonl", pairs)
    write_jsonl(
        study.root / "preferences.jsonl",
        [
            {"prompt": p["prompt"], "chosen": p["a"], "rejected": p["b"], "p": 0.8, "status": "ok"}
            for p in pairs
        ],
    )
    base = str(WEIGHTS / "base")
    where = {
        **{f"{stage}.model": base for stage in ("helpful_sft", "sl_cai")},
        "base": base,
        "prompts.eval": str(files["prompts_eval"]),
        "prompts.rl": str(files["prompts_rl"]),
        "prompts.sl": str(files["prompts_rl"]),
        "pairs.pairs": str(study.root / "pairs.jsonl"),
        "labels.preferences": str(study.root / "preferences.jsonl"),
        "reward_model.model": str(study.work("rm-0") / "model"),
    }
    (study.root / "rows").mkdir()
    row = {
        "job": "pipeline-0",
        "kind": "pipeline",
        "seed": 0,
        "settings": {},
        "metrics": {"paths": where},
    }
    (study.root / "rows" / "pipeline-0.json").write_text(json.dumps(row))
    do(study, "pairs-0", "pairs")
    do(study, "rm-0", "reward_model")
    yield study


def do(study, name, kind, **settings):
    """Run a job as the command does, and give its metrics."""
    from studies.replication.jobs import Job, perform
    from studies.replication.plan import FUNCTIONS

    job = Job(name=name, kind=kind, seed=0, settings=settings)
    perform(study, job, FUNCTIONS[kind])
    assert study.finished(job)
    return study.row(name)["metrics"]


SMALL = {"steps": 1, "batch_size": 8, "max_new_tokens": 16, "samples_per_prompt": 4, "precision": "float32"}


def test_reward_models(study):
    hard = do(study, "hard.0-0", "reward_model", targets="hard", share=0.5)
    own = do(study, "soft.0-0", "judge_reward_model")
    assert {"accuracy", "ece", "brier", "log_loss"} <= hard.keys() & own.keys()
    assert study.row("pairs-0")["metrics"]["pairs"] > 30


def test_policies(study):
    for method in ("ppo", "grpo", "rloo"):
        more = {**SMALL, "samples_per_prompt": 1} if method == "ppo" else SMALL
        found = do(study, f"{method}-0", "reinforce", method=method, rewards=["pipeline"], **more)
        assert found["gold"]["harmless"]["n"] > 0 and len(found["curve"]) == 1
    both = {"rewards": ["pipeline", "hard.0-0"], "combine": "min", "start": "ppo-0"}
    assert do(study, "min-0", "reinforce", method="grpo", **both, **SMALL)["gold"]["helpful"]["n"] > 0
    assert do(study, "dpo-0", "prefer", batch_size=8, precision="float32")["training"]["loss"] > 0


def test_brakes_that_watch_and_that_stop(study, monkeypatch):
    from studies.replication import brakes
    from studies.replication.world import read_lines

    small = {**SMALL, "samples_per_prompt": 1, "steps": 2}
    watched = do(study, "brake.loose-0", "watched", every=1, limit=8, **small)
    assert [row["step"] for row in watched["evaluations"]] == [0, 1, 2]
    assert watched["brake"]["last_step"] == 2 and watched["brake"]["fired"] == 0.0
    peak = max(row["gold"] for row in watched["evaluations"])
    assert watched["brake"]["peak_gold"] == peak
    found = do(
        study, "braked-0", "braked", unbraked="brake.loose-0"[:-2], every=1, limit=8, patience=2, **small
    )
    assert found["brake"]["kept_to_peak"] == pytest.approx(found["gold"]["overall"]["value"] / peak)
    people = {"verdicts": 16, "wrong": 0.25, "unbraked": "brake.loose", "every": 1, "limit": 8, **small}
    found = do(study, "people_braked-0", "people_braked", **people)
    said = read_lines(study.work("people_braked-0") / "people.jsonl")
    held_out = read_lines(study.work("people_braked-0") / "held_out.jsonl")
    asked = {row["id"].rpartition("/")[0] for row in said}
    assert len(said) == 16 and asked and not asked & {row["id"] for row in held_out}
    assert 1 <= found["gold_model"]["held_out_pairs"] <= round(0.2 * len(said))
    assert found["gold_model"]["taken"] == 0.0  # of a few pairs nothing can be told
    assert found["brake"]["kept_to_peak"] == pytest.approx(found["gold"]["overall"]["value"] / peak)
    start, unbraked = (run["evaluations"][0] for run in (found, watched))
    assert start["proxy"] == unbraked["proxy"] and start["gold"] != unbraked["gold"]
    # A run that ends before its last step was stopped.
    stopped = {"gold": {}, "curve": [], "training": {}}
    monkeypatch.setattr(brakes, "learn", lambda *_: stopped)
    monkeypatch.setattr(brakes, "read_lines", lambda path: watched["evaluations"][:2])
    monkeypatch.setattr(brakes, "write_lines", lambda path, rows: None)
    assert brakes.watched(study, "stopped", 0, every=1, limit=8, patience=1, **small)["brake"]["fired"] == 1.0


def test_the_judge_and_a_checker_as_rewards(study, monkeypatch):
    from studies.replication import world

    found = do(study, "direct-0", "direct", method="grpo", principles=2, **SMALL)
    assert found["training"]["missing_rewards"] == 0
    monkeypatch.setattr(world, "FACT_SAMPLES", 1)
    facts = do(study, "rlvr-0", "verify", **SMALL)["facts"]
    assert set(facts) == {"fact_train", "fact_heldout", "flattery_train", "flattery_heldout"}


def test_supervision(study):
    found = do(study, "revisions-0", "revisions", rounds=2, critiques=True, count=6)
    assert len(found["after"]) == 3
    assert len(do(study, "bare-0", "revisions", rounds=1, critiques=False, count=6)["after"]) == 2
    labels = do(study, "labels.1-0", "label", principles=1)
    assert (labels["pairs"], labels["asked"]) == (24, 48)
    assert (study.work("labels.1-0") / "preferences.jsonl").exists()
