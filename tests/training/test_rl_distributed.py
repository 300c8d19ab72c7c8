"""Two CPU processes with gloo sample, score and learn what one with the same global batch does: DDP and FSDP."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from training.models.load import load_causal_lm
from training.run.logs import read_metrics

# All methods in one launch; a launch costs more than the training.
SCRIPT = """
import json, sys
from training import grpo, ppo, rloo
from training.config.rl import GRPOConfig, PPOConfig, RLOOConfig

kinds = {"ppo": (PPOConfig, ppo.train), "grpo": (GRPOConfig, grpo.train), "rloo": (RLOOConfig, rloo.train)}
for name, settings in json.loads(sys.argv[1]):
    make, train = kinds[name.removesuffix("_lora")]
    train(make(**settings))
"""

LAUNCHER = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2"]
LAUNCHER += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
LAUNCHER += ["--main_process_port", "0"]


def run(script, jobs, *launcher, **environment):
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd(), **environment}
    command = [*launcher, str(script), json.dumps(jobs)]
    done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]


def saved_weights(directory):
    """Of a model, or of an adapter in PEFT's format."""
    if not (directory / "adapter_config.json").exists():
        return load_causal_lm(str(directory)).state_dict()
    assert not (directory / "model.safetensors").exists()
    adapter = load_file(directory / "adapter_model.safetensors")
    assert all("lora_" in name for name in adapter)
    return adapter


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "names"), [("ddp", ("ppo", "grpo", "rloo")), ("fsdp", ("ppo", "ppo_lora", "grpo_lora"))]
)
def test_two_processes_learn_what_one_does(kind, names, tiny_dir, tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    texts = ("egg", "a cat and a dog", "What is the capital of France?", "house", "Tell me a story")
    prompts.write_text(
        "".join(json.dumps({"id": t, "prompt": [{"role": "user", "content": t}]}) + "\n" for t in texts)
    )

    def jobs(directory):
        common = {
            "model": str(tiny_dir),
            "prompts": [str(prompts)],
            "rewards": [{"kind": "regex", "pattern": "e"}, {"kind": "length", "free": 10}],
            "precision": "float32",
            "steps": 3,
            "batch_size": 10,
            "minibatches": 2,
            "epochs": 2,
            "max_new_tokens": 8,
            "micro_batch_tokens": 60,
            "log_samples": 10,
            "optimizer": {"learning_rate": 1e-3},
        }
        own = {
            "ppo": {"value": {"start_from": "policy"}, "snapshot_every": 2},
            "grpo": {"samples_per_prompt": 5},
            "rloo": {"samples_per_prompt": 5},
        }
        # The reference is then the policy with its adapter off.
        own["ppo_lora"] = own["ppo"] | {"lora": {"r": 4}}
        own["grpo_lora"] = own["grpo"] | {"lora": {"r": 4, "merge": False}}
        return [
            (name, {**common, **own[name], "output_dir": str(tmp_path / directory / name)}) for name in names
        ]

    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    run(script, jobs("one"), sys.executable)
    launcher = [*LAUNCHER]
    launcher += {"ddp": ["--multi_gpu"], "fsdp": ["--use_fsdp", "--fsdp_version", "2"]}[kind]
    run(script, jobs("two"), *launcher, ACCELERATE_USE_CPU="true")
    for name in names:
        one, two = (read_metrics(tmp_path / place / name / "metrics.jsonl") for place in ("one", "two"))
        assert len(one) == len(two) == 3
        for first, second in zip(one, two, strict=True):
            for key in ("reward", "kl", "entropy", "policy_loss", "value_loss", "grad_norm", "length"):
                if key in first:
                    assert second[key] == pytest.approx(first[key], rel=1e-3, abs=1e-4), (name, key)
        said = [
            [row["response"] for row in read_metrics(tmp_path / place / name / "samples.jsonl")]
            for place in ("one", "two")
        ]
        assert said[0] == said[1]
        weights = [saved_weights(tmp_path / place / name) for place in ("one", "two")]
        assert weights[0].keys() == weights[1].keys()
        for key, tensor in weights[0].items():
            # Adam turns a gradient near zero into a step of full size: rounding shows in single weights.
            torch.testing.assert_close(weights[1][key], tensor, rtol=1e-3, atol=3e-3)
    for name in names:
        if name.startswith("ppo"):
            load_causal_lm(str(tmp_path / "two" / name / "snapshots" / "step-000002"))


DIVERGING = """
import json, os, sys
from pathlib import Path
import yaml
from training import cli, rloo
from training.config.rl import RLOOConfig
from training.rl import algorithms

algorithms.clipped_policy_loss = lambda moved, *rest, **named: (moved * float("nan"), moved * 0)
settings = json.loads(sys.argv[1])
config = Path(settings["output_dir"]).parent / f"config-{os.environ['RANK']}.yaml"
config.write_text(yaml.safe_dump(settings))
sys.argv = ["rloo", "--config", str(config)]
config.with_suffix(".code").write_text(str(cli.main(RLOOConfig, rloo.train, "")))
"""


@pytest.mark.slow
def test_two_processes_that_diverge_write_one_batch_and_both_exit_with_2(tiny_dir, tmp_path):
    (tmp_path / "prompts.jsonl").write_text(json.dumps({"prompt": "egg"}) + "\n")
    settings = {
        "model": str(tiny_dir),
        "prompts": [str(tmp_path / "prompts.jsonl")],
        "output_dir": str(tmp_path / "run"),
        "rewards": [{"kind": "regex", "pattern": "e"}],
        "precision": "float32",
        "batch_size": 8,
        "max_new_tokens": 8,
    }
    script = tmp_path / "script.py"
    script.write_text(DIVERGING)
    run(script, settings, *LAUNCHER, "--multi_gpu", ACCELERATE_USE_CPU="true")
    assert [(tmp_path / f"config-{rank}.code").read_text() for rank in (0, 1)] == ["2", "2"]
    assert len(json.loads((tmp_path / "run" / "diverged.json").read_text())["batch"]) == 8
