"""Model cards: what the hub reads of them, what is inherited, and that nothing in them is markup."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from training.config.supervised import RewardModelConfig, SftConfig
from training.errors import TrainingError
from training.run.card import Result, finished_card, model_card

HOSTILE = [
    "<script>x</script>",
    "| a | b |\n|---|",
    "`code`",
    "[x](javascript:1) ![y](z)",
    "---\ntags: [no]\n---",
]


@pytest.fixture
def config(tmp_path):
    """`config(kind, model=…, **metadata)`: the settings of a training."""

    def made(kind=SftConfig, model="organisation/base-7b", **metadata):
        folder = tmp_path / "out" / "policy"
        return kind(model=model, output_dir=folder, data=(tmp_path / "rows.jsonl",), metadata=metadata)

    return made


def front(card: str) -> dict:
    """The front matter as the hub's own library reads it; nothing is asked of the hub."""
    return ModelCard(card).data.to_dict()


def test_what_the_trainer_knows(config):
    metrics = {"loss": 0.5, "eval_accuracy": 0.75, "eval_loss": float("nan")}
    card = model_card("reward model", config(RewardModelConfig, constitution="hhh@1.0.0"), metrics, steps=12)
    data = ModelCard(card).data
    assert (data.library_name, data.pipeline_tag, data.base_model) == (
        "transformers", "text-classification", "organisation/base-7b",
    )  # fmt: skip
    assert data.tags == ["charter", "reward-model"] and data.license is None and data.model_name == "policy"
    (result,) = data.eval_results
    assert (result.task_type, result.metric_type, result.metric_value) == (
        "text-classification",
        "accuracy",
        0.75,
    )
    assert "| constitution | hhh@1.0.0 |" in card and "| eval accuracy | 0.75 |" in card
    assert "12 optimiser steps" in card and "metadata" not in card


def test_without_measurements_there_is_no_index(config):
    data = front(model_card("SFT", config(), {"loss": 1.0}, steps=1))
    assert "model-index" not in data and data["pipeline_tag"] == "text-generation"


def test_base_model_and_license_come_down_from_the_model_that_it_started_from(config, tmp_path):
    first = tmp_path / "first"
    first.mkdir()
    assert "base_model" not in front(model_card("SFT", config(model=str(first)), {}, steps=1))
    (first / "README.md").write_text("---\nlicense: apache-2.0\nbase_model: organisation/base-7b\n---\n# x\n")
    child = model_card("SFT", config(model=str(first)), {}, steps=1)
    assert front(child)["license"] == "apache-2.0" and front(child)["base_model"] == "organisation/base-7b"
    for broken in (
        "no front matter",
        "---\n- a list\n---\n",
        "---\nlicense: [a, b]\n---\n",
        "---\n: {\n---\n",
    ):
        (first / "README.md").write_text(broken)
        assert not {"license", "base_model"} & set(
            front(model_card("SFT", config(model=str(first)), {}, steps=1))
        )


def test_a_card_is_written_again_with_what_was_measured_later(config):
    settings = config(constitution="old")
    folder = settings.output_dir
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(settings.model_dump(mode="json")))
    (folder / "result.json").write_text(json.dumps({"method": "PPO", "steps": 3, "metrics": {"kl": 2.0}}))
    results = [
        Result(dataset="held-out prompts", metric="harmless", value=0.9, low=0.8, high=0.95, n=40),
        Result(dataset="held-out prompts", metric="helpful", value=0.7),
        Result(dataset="other prompts", metric="helpful", value=0.6),
    ]
    card = finished_card(
        folder, title="mine: policy", facts=[("label set", "ab" * 32)], results=results, notes=["Longer."]
    )
    data = ModelCard(card).data
    assert data.model_name == "mine: policy" and [r.metric_value for r in data.eval_results] == [
        0.9,
        0.7,
        0.6,
    ]
    assert {r.dataset_type for r in data.eval_results} == {"held-out-prompts", "other-prompts"}
    assert "| held-out prompts | harmless | 0.9 | 0.8 to 0.95 | 40 |" in card
    assert "| kl | 2 |" in card and "| constitution | old |" not in card and "- Longer.\n" in card
    assert not (folder / "README.md").exists(), "nothing is written"
    with pytest.raises(TrainingError, match="holds no finished training"):
        finished_card(folder.parent, title="x", facts=[], results=[])


@pytest.mark.parametrize("text", HOSTILE)
def test_whatever_a_fact_says_stays_in_its_cell(config, text):
    card = model_card("SFT", config(judge=text), {}, steps=1)
    assert front(card) == front(model_card("SFT", config(), {}, steps=1))
    (row,) = [line for line in card.splitlines() if line.startswith("| judge |")]
    assert row.replace("\\|", "").count("|") == 3
    assert "<script" not in card and "`code`" not in card and "\n[x](" not in card and " [x](" not in row


def test_a_card_on_disk_is_read_by_the_hubs_library(config, tmp_path):
    path = tmp_path / "README.md"
    path.write_text(model_card("SFT", config(), {"eval_loss": 0.1}, steps=1), encoding="utf-8")
    assert ModelCard.load(Path(path)).data.eval_results[0].metric_name == "loss"
