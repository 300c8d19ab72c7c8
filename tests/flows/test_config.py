"""Configurations: every shipped one resolves, and a mistake is one line with its place."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
import yaml

from flows.config import dump_config, load_config, trainers
from flows.config.forms import StageName
from flows.config.run import RunConfig
from flows.errors import FlowError
from flows.stages.registry import NAMES, active
from training.config.rl import GRPOConfig, PPOConfig, RLOOConfig
from training.config.supervised import DpoConfig, RewardModelConfig, SftConfig

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


@pytest.fixture
def run_yaml(tmp_path, make_run):
    return make_run(tmp_path, tmp_path / "model")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_load_and_resolve(path):
    config = load_config(path)
    assert config.name == path.stem
    for stage in active(config):
        stage.settings(config)
        stage.tuning(config)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_fill_the_trainers(path):
    config = load_config(path)
    shared = {"model": "m", "output_dir": "o", "seed": config.seed}
    data = {**shared, "data": ["d"]}
    SftConfig.model_validate({**data, **config.helpful_sft.model_dump()})
    SftConfig.model_validate({**data, **config.sl_cai.model_dump(exclude={"start_from"})})
    own = set(OWN["RewardModelSection"])
    RewardModelConfig.model_validate({**data, **config.reward_model.model_dump(exclude=own)})
    knobs = config.rl.model_dump(exclude={"method", "reward", "early_stopping"})
    PPOConfig.model_validate({**shared, "prompts": ["p"], "reward_model": "r", **knobs})


FILLED = {"model", "output_dir", "data", "seed", "metadata"}
LABELS = {"statuses", "max_not_ok", "shares", "exam"}
REWARDED = {"prompts", "reward_model", "reference", "rewards", "pretrain", "early_stopping"}
OWN = {
    "SLCAISection": {"start_from"},
    "RewardModelSection": {"start_from", "ensemble", "dimensions", "human", "rewrites"},
    "PPOSection": {"method", "reward", "early_stopping"},
    "GRPOSection": {"method", "reward", "early_stopping"},
    "RLOOSection": {"method", "reward", "early_stopping"},
    "PreferenceSection": {"method", "rewrites"},
}


@pytest.mark.parametrize(
    ("section", "trainer", "by_pipeline"),
    [
        (trainers.HelpfulSFTSection, SftConfig, set()),
        (trainers.SLCAISection, SftConfig, {"train_on"}),
        (trainers.RewardModelSection, RewardModelConfig, LABELS),
        (trainers.PPOSection, PPOConfig, REWARDED),
        (trainers.GRPOSection, GRPOConfig, REWARDED),
        (trainers.RLOOSection, RLOOConfig, REWARDED),
        (
            trainers.PreferenceSection,
            DpoConfig,
            LABELS | {"loss", "reference"},
        ),
    ],
)
def test_sections_have_the_trainers_own_fields(section, trainer, by_pipeline):
    by_pipeline = by_pipeline | (FILLED & set(trainer.model_fields))
    own = OWN.get(section.__name__, set())
    assert set(section.model_fields) - own == set(trainer.model_fields) - by_pipeline
    assert own <= set(section.model_fields)


def test_names_of_stages_are_the_same_everywhere():
    assert get_args(StageName) == NAMES


def test_a_resolved_config_loads_as_it_was(run_yaml, tmp_path):
    config = load_config(run_yaml)
    resolved = tmp_path / "elsewhere" / "resolved.yaml"
    resolved.parent.mkdir()
    resolved.write_text(dump_config(config))
    assert load_config(resolved) == config


def test_every_field_is_described():
    def walk(model, seen):
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name}"
            for kind in (field.annotation, *get_args(field.annotation)):
                if isinstance(kind, type) and hasattr(kind, "model_fields") and kind not in seen:
                    walk(kind, seen | {kind})

    walk(RunConfig, {RunConfig})


def test_paths_start_at_the_file_and_on_the_command_line_at_the_working_directory(
    run_yaml, tmp_path, monkeypatch
):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    config = load_config(run_yaml, ["prompts.eval.path=mine.jsonl"])
    assert config.prompts.sl.path == tmp_path / "prompts.jsonl"
    assert config.prompts.eval.path == elsewhere / "mine.jsonl"
    assert config.constitution == str(tmp_path / "tiny.yaml")
    assert config.run_directory == tmp_path / "runs" / "tiny"


def test_hub_ids_and_served_names_stay_as_they_are(run_yaml):
    changes = [
        "models.base=meta-llama/Llama-3.1-8B",
        "judge={kind: openai, model: my-judge, endpoints: ['http://127.0.0.1:1/v1']}",
    ]
    config = load_config(run_yaml, changes)
    assert (config.models.base, config.judge.model) == ("meta-llama/Llama-3.1-8B", "my-judge")


def edit(path: Path, **changes) -> Path:
    values = yaml.safe_load(path.read_text())
    for name, value in changes.items():
        if value is None:
            del values[name]
        else:
            values[name] = value
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeed": 1}, "seeed: no such field; did you mean seed?"),
        ({"seed": "x"}, "seed: 'x' is not allowed"),
        ({"seed": -1}, "seed: -1 is not allowed: Input should be greater than or equal to 0"),
        ({"name": "Über"}, "name: 'Über' is not allowed"),
        ({"models": {}}, "models.base: is required"),
        ({"rl": {"steps": 0}}, "rl.steps: 0 is not allowed"),
        ({"rl": {"batch_size": 5, "samples_per_prompt": 2}}, "batch_size (5) must be a multiple"),
        ({"sl_cai": {"patience": 2}}, "patience needs held_out above 0"),
        ({"sl_cai": {"train_on": "last"}}, "sl_cai.train_on: no such field"),
        ({"judge": {"kind": "openai", "model": "m"}}, "kind openai needs at least one"),
        ({"prompts": None}, "prompts: is required (or `world:` for the microworld's own)"),
        ({"world": {}}, "prompts: the microworld brings its own"),
        ({"labels": {"ledger": "postgresql://me:secret@host/db"}}, "leave the password out of the URL"),
        ({"labels": {"ledger": "ftp://me:secret@x"}}, "labels.ledger: 'ftp://me:***@x' is not allowed"),
        ({"report": {"price_per_human_label": -1}}, "prices.price_per_human_label: -1 is not allowed"),
        ({"report": {"price_per_million_written_tokens": 1}}, "needs price_per_million_tokens beside it"),
    ],
)
def test_a_mistake_is_one_line_with_its_place(run_yaml, changes, message):
    edit(run_yaml, **changes)
    with pytest.raises(FlowError) as caught:
        load_config(run_yaml)
    text = str(caught.value)
    assert message in text
    assert text.startswith(str(run_yaml))
    assert "\n" not in text
    assert "secret" not in text


def test_the_line_of_a_mistake_is_named(run_yaml):
    lines = run_yaml.read_text().splitlines()
    number = next(n for n, line in enumerate(lines, 1) if line.startswith("rl:")) + 1
    lines[number - 1] = "  steps: none"
    run_yaml.write_text("\n".join(lines))
    with pytest.raises(FlowError, match=rf"run\.yaml:{number}: rl\.steps: 'none' is not allowed"):
        load_config(run_yaml)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rl.steps=none", "--set rl.steps=none: rl.steps: 'none' is not allowed"),
        ("rl.stepps=3", "--set rl.stepps=3: rl.stepps: no such field; did you mean steps?"),
        ("rl.steps", "--set rl.steps: expected section.field=value"),
        ("seed.x=1", "--set seed.x=1: seed is not a section"),
        ("rl=[", "--set rl=[: the value is not YAML"),
    ],
)
def test_a_mistake_on_the_command_line_is_named(run_yaml, override, message):
    edit(run_yaml, seed=1)
    with pytest.raises(FlowError) as caught:
        load_config(run_yaml, [override])
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected fields and values, got an empty file"),
        ("- a", "expected fields and values, got list"),
        ("a: [", ": not YAML: "),
        ("name: a\nname: b", ":2: name is given twice"),
        ("a: !!python/object:os.system x", ": not YAML: "),
    ],
)
def test_a_file_that_is_no_config_is_named(tmp_path, text, message):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(FlowError) as caught:
        load_config(path)
    assert message in str(caught.value) and str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FlowError, match=r"no\.yaml: cannot be read: No such file"):
        load_config(tmp_path / "no.yaml")


def test_keys_of_the_version_before_are_read_with_a_line_that_names_the_new_one(run_yaml, caplog):
    old = ["rl={brake: {microworld: true, every: 3}}", "report={price_per_million_tokens: 2.5}"]
    config = load_config(run_yaml, old)
    assert config.rl.early_stopping.every == 3 and config.prices.price_per_million_tokens == 2.5
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2 and all("the next version will not know the old name" in line for line in lines)
    assert (
        "report is called prices now" in lines[0] and "rl.brake is called rl.early_stopping now" in lines[1]
    )
    # Written out whole, as a run's folder keeps it, the old file has nothing to say where nothing was stated.
    caplog.clear()
    whole = yaml.safe_load(dump_config(load_config(run_yaml)))
    whole["report"] = whole.pop("prices")
    whole["rl"]["brake"] = whole["rl"].pop("early_stopping")
    run_yaml.write_text(yaml.safe_dump(whole))
    assert load_config(run_yaml).rl.early_stopping is None and not caplog.records
    with pytest.raises(FlowError, match=r"report: is called prices now, which is given too"):
        load_config(run_yaml, ["report.price_per_human_label=1", "prices.price_per_human_label=1"])
    with pytest.raises(FlowError, match=r"rl\.early_stopping\.patience"):
        load_config(run_yaml, ["rl={brake: {microworld: true, patience: 0}}"])
