"""Training over several processes, as a run starts it."""

from __future__ import annotations

import os
import subprocess

import pytest

from flows.config.forms import RunRequest
from flows.pipeline.launch import open_session, run_stages
from flows.runs.progress import Silent
from flows.stages.trainer import launcher


def test_one_process_needs_no_launcher():
    command, environment = launcher({"accelerate_config": None, "processes": 1}, "training.sft")
    assert command[1:] == ["-m", "training.sft"] and environment == {}


@pytest.mark.slow
def test_two_processes_are_two(tmp_path):
    (tmp_path / "whoami.py").write_text(
        # One write each: both write to the same pipe.
        "import os\nos.write(1, f\"I am {os.environ['RANK']} of {os.environ['WORLD_SIZE']}\\n\".encode())\n"
    )
    command, environment = launcher({"accelerate_config": None, "processes": 2}, "whoami")
    done = subprocess.run(
        command, env={**os.environ, **environment}, cwd=tmp_path, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.splitlines()) == {"I am 0 of 2", "I am 1 of 2"}


@pytest.mark.slow
def test_two_processes_train_as_one_does(make_run, tiny_model, tmp_path):
    """`launcher.processes: 2` on the CPU: two processes that share each batch end where one ends."""
    losses = {}
    for processes in (1, 2):
        path = make_run(tmp_path / str(processes), tiny_model)
        changes = (f"launcher.processes={processes}",)
        with open_session(RunRequest(config=str(path), changes=changes), Silent()) as session:
            run_stages(session, to_stage="helpful_sft")
            outcome = session.outcomes["helpful_sft"]
            losses[processes] = outcome.manifest.metrics["loss"]
    assert losses[2] == pytest.approx(losses[1], rel=1e-4)
