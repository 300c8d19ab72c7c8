"""Configs: what is allowed, and the one line for what is not."""

from __future__ import annotations

import subprocess
import sys

import pytest
import yaml

from training.config.base import SupervisedConfig, TrainConfig, load_config, save_config
from training.errors import TrainingError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "model: m\noutput_dir: o\noptimizer:\n  learning_rat: 3\n",
            ":4: optimizer.learning_rat: no such field; did you mean learning_rate?",
        ),
        (
            "model: m\noutput_dir: o\nseed: -1\n",
            ":3: seed: -1 is not allowed: Input should be greater than or equal to 0",
        ),
        ("model: m\noutput_dir: o\nmodel: n\n", ":3: model is given twice"),
        ("model: m\n", "config.yaml: output_dir: is required"),
        ("- 1\n", ": expected fields and values, got list"),
        ("a: [1\n", "not YAML"),
        ("model: m\noutput_dir: o\noptimizer: {betas: [0.9, 1.5]}\n", "must each be at least 0 and below 1"),
        ("model: m\noutput_dir: o\nlora:\n  r: 0\n", ":4: lora.r: 0 is not allowed"),
    ],
)
def test_a_mistake_is_one_line_with_file_line_field_and_value(tmp_path, text, expected):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(TrainingError) as caught:
        load_config(path, TrainConfig)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert expected in message
    assert "\n" not in message


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(TrainingError, match="cannot be read: No such file"):
        load_config(tmp_path / "none.yaml", TrainConfig)


def test_the_resolved_config_reads_back_as_itself(tmp_path):
    config = SupervisedConfig(model="m", output_dir=tmp_path, data=("a.jsonl",), lora={"r": 4})
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml", SupervisedConfig) == config


def test_patience_without_held_out_examples_contradicts_itself(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"model": "m", "output_dir": "o", "data": ["d.jsonl"], "patience": 2}))
    with pytest.raises(TrainingError, match="patience needs held_out above 0"):
        load_config(path, SupervisedConfig)


def test_every_field_has_a_description():
    def fields(schema):
        yield from schema.get("properties", {}).items()
        for inner in schema.get("$defs", {}).values():
            yield from inner.get("properties", {}).items()

    missing = [
        name for name, field in fields(SupervisedConfig.model_json_schema()) if not field.get("description")
    ]
    assert not missing


def test_configs_import_without_torch():
    code = "import sys, training.config.base, common.rows, training; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
