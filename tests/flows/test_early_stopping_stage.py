"""Early stopping in a run: one gold judge, held-out prompts of every kind, and a trainer's config that can be read."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest

from common.files import write_json
from constitution import load
from constitution.snapshot import to_json
from flows.config import load_config
from flows.errors import FlowError
from flows.labelling import reward as judge_reward
from flows.stages.early_stopping import microworld, stopping_fields, stopping_judge, stopping_settings
from judges import ScriptedJudge
from training.config.rl import PPOConfig


@pytest.fixture
def run_yaml(tmp_path, make_run):
    return make_run(tmp_path, tmp_path / "model")


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ("{}", "rl.early_stopping: give one of microworld, model, judge and people (have none)"),
        (
            "{microworld: true, model: gold/rm}",
            "give one of microworld, model, judge and people (have microworld, model)",
        ),
        ("{microworld: true, people: true}", "(have microworld, people)"),
        ("{people: perhaps}", "rl.early_stopping.people"),
        ("{microworld: true, patience: 0}", "rl.early_stopping.patience"),
        ("{microworld: true, prompts: [x]}", "rl.early_stopping.prompts: no such field"),
    ],
)
def test_mistakes_are_one_line(run_yaml, section, expected):
    with pytest.raises(FlowError) as refused:
        load_config(run_yaml, [f"rl={{early_stopping: {section}}}"])
    assert expected in str(refused.value) and "\n" not in str(refused.value)


def test_only_online_methods_have_one(run_yaml):
    with pytest.raises(FlowError, match=r"rl\.early_stopping: no such field"):
        load_config(run_yaml, ["rl={method: dpo, early_stopping: {microworld: true}}"])


def test_held_out_prompts_are_of_every_kind(run_yaml, tmp_path):
    config = load_config(run_yaml, ["rl={early_stopping: {microworld: true, limit: 40}}"])
    for name in ("held_out", "held_out_benign"):
        rows = [{"id": f"{name}-{n}", "prompt": [{"role": "user", "content": "x"}]} for n in range(50)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    inputs = {name: str(tmp_path / f"{name}.jsonl") for name in ("held_out", "held_out_benign")}
    work = SimpleNamespace(
        settings=stopping_settings(config.rl.early_stopping),
        inputs=inputs,
        input=lambda name: tmp_path / f"{name}.jsonl",
        seed=0,
        directory=tmp_path / "stage",
    )
    work.directory.mkdir()
    fields = stopping_fields(work)
    ids = [json.loads(line)["id"] for line in Path(fields["prompts"][0]).read_text().splitlines()]
    assert len(ids) == 40 and 10 < sum("benign" in i for i in ids) < 30
    term = {"kind": "length"}
    settings = PPOConfig(
        model="m",
        prompts=["p"],
        output_dir="o",
        rewards=[term],
        value={"start_from": "policy"},
        early_stopping=fields,
    )
    assert (
        settings.early_stopping is not None
        and settings.early_stopping.gold.function == "flows.stages.early_stopping:microworld"
    )


def test_a_judge_is_gold(run_yaml, tmp_path, tiny_model, monkeypatch):
    """A whole run of the trainer, whose held-out answers are marked by the judge of the configuration."""
    from training import ppo

    seen = []

    def marks(call):
        seen.append(call)
        return (math.log(0.1),) * 10

    asked = []
    monkeypatch.setattr(
        judge_reward, "make_judge", lambda given, **_: asked.append(given) or ScriptedJudge(marks)
    )
    config = load_config(run_yaml, [f"rl={{early_stopping: {{judge: {{model: {tiny_model}}}, every: 1}}}}"])
    rows = [{"id": f"{n}", "prompt": [{"role": "user", "content": f"held out {n}"}]} for n in range(8)]
    (tmp_path / "held_out.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_json(tmp_path / "constitution.json", to_json(load(tmp_path / "tiny.yaml")))
    (tmp_path / "stage").mkdir()
    work = SimpleNamespace(
        settings=stopping_settings(config.rl.early_stopping),
        tuning={"gold_judge": stopping_judge(config)},
        inputs={"held_out": "", "constitution": ""},
        input=lambda name: next(tmp_path.glob(f"{name}.json*")),
        seed=0,
        directory=tmp_path / "stage",
    )
    settings = PPOConfig(
        model=str(tiny_model),
        prompts=[tmp_path / "prompts.jsonl"],
        output_dir=tmp_path / "policy",
        rewards=[{"kind": "length"}],
        value={"start_from": "policy"},
        precision="float32",
        steps=1,
        batch_size=4,
        max_new_tokens=4,
        early_stopping=stopping_fields(work),
    )
    found = ppo.train(settings).metrics
    evaluations = [
        json.loads(line) for line in (tmp_path / "policy/early_stopping.jsonl").read_text().splitlines()
    ]
    assert [row["n"] for row in evaluations] == [8, 8] and len(seen) == 16
    assert all(row["gold"] == pytest.approx(0.5) for row in evaluations) and found["stopped_early"] == 0.0
    assert asked[0]["model"] == str(tiny_model)
    assert all("held out" in call.messages[-1]["content"] for call in seen)


def test_the_oracle_is_gold():
    asked = [[{"role": "user", "content": "how do i bake a cake?"}]] * 2
    scores = microworld(asked, ["", "you bake the cake."])
    assert len(scores) == 2 and all(0 <= s <= 1 for s in scores)
