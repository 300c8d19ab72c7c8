"""The brake in a run: one gold judge, held-out prompts of every kind, and a trainer's config that can be read."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from flows.config import load_config
from flows.errors import FlowError
from flows.stages.brake import brake_fields, brake_settings, microworld
from training.rl_config import PPOConfig


@pytest.fixture
def run_yaml(tmp_path, make_run):
    return make_run(tmp_path, tmp_path / "model")


@pytest.mark.parametrize(
    ("brake", "expected"),
    [
        ("{}", "rl.brake: give one of microworld, model and judge (have none)"),
        (
            "{microworld: true, model: gold/rm}",
            "give one of microworld, model and judge (have microworld, model)",
        ),
        ("{microworld: true, patience: 0}", "rl.brake.patience"),
        ("{microworld: true, prompts: [x]}", "rl.brake.prompts: no such field"),
    ],
)
def test_mistakes_are_one_line(run_yaml, brake, expected):
    with pytest.raises(FlowError) as refused:
        load_config(run_yaml, [f"rl={{brake: {brake}}}"])
    assert expected in str(refused.value) and "\n" not in str(refused.value)


def test_only_online_methods_have_one(run_yaml):
    with pytest.raises(FlowError, match=r"rl\.brake: no such field"):
        load_config(run_yaml, ["rl={method: dpo, brake: {microworld: true}}"])


def test_held_out_prompts_are_of_every_kind(run_yaml, tmp_path):
    config = load_config(run_yaml, ["rl={brake: {microworld: true, limit: 40}}"])
    for name in ("held_out", "held_out_benign"):
        rows = [{"id": f"{name}-{n}", "prompt": [{"role": "user", "content": "x"}]} for n in range(50)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    inputs = {name: str(tmp_path / f"{name}.jsonl") for name in ("held_out", "held_out_benign")}
    work = SimpleNamespace(
        settings=brake_settings(config.rl.brake),
        inputs=inputs,
        input=lambda name: tmp_path / f"{name}.jsonl",
        seed=0,
        directory=tmp_path / "stage",
    )
    work.directory.mkdir()
    fields = brake_fields(work)
    ids = [json.loads(line)["id"] for line in Path(fields["prompts"][0]).read_text().splitlines()]
    assert len(ids) == 40 and 10 < sum("benign" in i for i in ids) < 30
    term = {"kind": "length"}
    settings = PPOConfig(
        model="m", prompts=["p"], output_dir="o", rewards=[term], value={"start_from": "policy"}, brake=fields
    )
    assert settings.brake is not None and settings.brake.gold.function == "flows.stages.brake:microworld"


def test_the_oracle_is_gold():
    asked = [[{"role": "user", "content": "how do i bake a cake?"}]] * 2
    scores = microworld(asked, ["", "you bake the cake."])
    assert len(scores) == 2 and all(0 <= s <= 1 for s in scores)
