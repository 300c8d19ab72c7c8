"""Two CPU processes with gloo give the losses of one with the same global batch: DDP and FSDP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from training.models.load import load_causal_lm, load_sequence_classifier
from training.run.logs import read_metrics

# Trains everything named on the command line in one launch; a launch costs more than the training.
SCRIPT = """
import json, signal, sys
from training import reward_model, sft
from training.dpo import train as dpo
from training.errors import Interrupted
from training.run.stopping import StopRequest

kinds = {"sft": (sft.SftConfig, sft.train), "reward": (reward_model.RewardModelConfig, reward_model.train),
         "kto": (dpo.DpoConfig, dpo.train)}
asked = StopRequest.agreed
for name, settings in json.loads(sys.argv[1]):
    make, train = kinds[name.removesuffix("_lora")]
    calls = []
    def stop_after_two(self):
        calls.append(0)
        return int(signal.SIGTERM) if len(calls) == 2 else None
    StopRequest.agreed = stop_after_two
    try:
        train(make(**settings))
    except Interrupted:
        pass
    StopRequest.agreed = asked
    train(make(**settings), resume=True)
"""


@pytest.fixture
def jobs(tiny_dir, tmp_path):
    chats, pairs = tmp_path / "sft.jsonl", tmp_path / "pairs.jsonl"
    turn = lambda role, text: {"role": role, "content": text}  # noqa: E731
    with chats.open("w") as file:
        for i in range(11):
            messages = [turn("user", "tell me " * (i % 4 + 1)), turn("assistant", "a story " * (i % 3 + 1))]
            file.write(json.dumps({"id": str(i), "messages": messages}) + "\n")
    with pairs.open("w") as file:
        for i in range(11):
            row = {
                "prompt": [turn("user", f"question {i} " * (i % 3 + 1))],
                "chosen": [turn("assistant", "Paris " * (i % 4 + 1))],
                "rejected": [turn("assistant", "No " * (i % 2 + 1))],
                "p": 0.9,
            }
            file.write(json.dumps(row) + "\n")

    def make(directory, names):
        common = {"model": str(tiny_dir), "precision": "float32", "batch_size": 5, "epochs": 2, "seed": 1}
        small = {"optimizer": {"learning_rate": 1e-3}, "micro_batch_tokens": 40, "held_out": 0.2}
        extra = {
            "sft": {"data": [str(chats)]},
            "reward": {"data": [str(pairs)]},
            "kto": {"data": [str(pairs)], "loss": "kto"},
        }
        extra |= {f"{name}_lora": extra[name] | {"lora": {"r": 4}} for name in ("sft", "reward")}
        return [
            (name, {**common, **small, **extra[name], "output_dir": str(tmp_path / directory / name)})
            for name in names
        ]

    return make


def run(script: Path, jobs, *launcher, **environment):
    command = [*launcher, str(script), json.dumps(jobs)]
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd(), **environment}
    done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "names"),
    [("ddp", ("sft", "reward", "kto")), ("fsdp", ("sft", "reward", "sft_lora", "reward_lora"))],
)
def test_two_processes_give_the_losses_of_one(kind, names, jobs, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    run(script, jobs("one", names), sys.executable)
    accelerate = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
    ]
    accelerate += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    flags = {"ddp": ["--multi_gpu"], "fsdp": ["--use_fsdp", "--fsdp_version", "2"]}[kind]
    run(script, jobs("two", names), *accelerate, *flags, ACCELERATE_USE_CPU="true")
    for name in names:
        one, two = (
            read_metrics(tmp_path / directory / name / "metrics.jsonl") for directory in ("one", "two")
        )
        assert len(one) == len(two) == 4
        for first, second in zip(one, two, strict=True):
            for key in ("loss", "accuracy", "grad_norm", "eval_loss"):
                if key in first:
                    assert second[key] == pytest.approx(first[key], rel=1e-4, abs=1e-5), (name, key)
        load = load_sequence_classifier if name.startswith("reward") else load_causal_lm
        weights = [load(str(tmp_path / directory / name)).state_dict() for directory in ("one", "two")]
        for key, tensor in weights[0].items():
            # Adam turns a gradient near zero into a step of full size: rounding shows in single weights.
            torch.testing.assert_close(weights[1][key], tensor, rtol=1e-3, atol=2e-3)


@pytest.mark.slow
def test_processes_that_do_not_find_each_other_are_one_line(jobs, tmp_path):
    from training.config.base import save_config
    from training.sft import SftConfig

    save_config(SftConfig(**jobs("lost", ["sft"])[0][1]), tmp_path / "sft.yaml")
    command = [sys.executable, "-m", "training.sft", "--config", str(tmp_path / "sft.yaml")]
    environment = {**os.environ, "WORLD_SIZE": "2", "RANK": "0", "PYTHONPATH": os.getcwd()}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1] == (
        "error: 2 processes were launched and 1 found each other; on CPUs set ACCELERATE_USE_CPU=true"
    )
