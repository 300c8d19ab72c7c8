"""`charter run` as a person meets it: under a real Prefect, with its errors, stopped and started again."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from flows.runs.directory import RunDirectory

CHARTER = [sys.executable, "-c", "from flows.cli import main; main()"]


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return {**kept, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}


def charter(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [*CHARTER, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=280)


@pytest.fixture
def run_yaml(tmp_path, make_run, tiny_model):
    return make_run(tmp_path, tiny_model)


def runs_in_prefect(runs_dir: Path) -> list[tuple[str, str, str]]:
    """(flow, run name, state) of every flow run, in the order of their start."""
    with sqlite3.connect(runs_dir / ".prefect" / "prefect.db") as database:
        return database.execute(
            "select flow.name, flow_run.name, flow_run.state_type from flow_run "
            "join flow on flow.id = flow_run.flow_id order by flow_run.start_time"
        ).fetchall()


def test_help_names_every_command(tmp_path):
    done = charter("--help", cwd=tmp_path)
    assert done.returncode == 0
    for command in ("constitution", "demo", "judge", "labels", "run", "ui"):
        assert f"\n  {command} " in done.stdout
    assert "--from-stage" in charter("run", "--help", cwd=tmp_path).stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--config", "no.yaml"], "error: no.yaml: cannot be read: No such file or directory"),
        (
            ["run", "--config", "run.yaml", "--set", "rl.stps=1"],
            "rl.stps: no such field; did you mean steps?",
        ),
        (
            ["run", "--config", "run.yaml", "--constitution", "nobody"],
            "error: no constitution named 'nobody'",
        ),
        (["run", "--config", "run.yaml", "--set", "models.base=./none"], "error: models.base: "),
        (["run", "--config", "run.yaml", "--from-stage", "world"], "error: from_stage: world is not part"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(run_yaml, arguments, message):
    done = charter(*arguments, cwd=run_yaml.parent)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not (run_yaml.parent / "runs").exists()


def test_an_unknown_option_is_told_by_click(tmp_path):
    done = charter("run", "--confg", "x", cwd=tmp_path)
    assert done.returncode == 2 and "No such option '--confg'" in done.stderr


@pytest.mark.slow
@pytest.mark.prefect
def test_a_run_is_known_to_prefect_and_ends_with_its_directory(run_yaml):
    done = charter("run", "--config", "run.yaml", "--to-stage", "prompts", cwd=run_yaml.parent)
    assert done.returncode == 0, done.stderr
    runs_dir = run_yaml.parent / "runs"
    assert done.stdout.splitlines()[-1] == str(runs_dir / "tiny")
    said = done.stderr.replace(str(run_yaml.parent), "")
    assert "Traceback" not in said and "prefect" not in said.lower()
    assert runs_in_prefect(runs_dir) == [
        ("rlaif", "rlaif of run", "COMPLETED"),
        ("prompts", "prompts of run", "COMPLETED"),
    ]


@pytest.mark.slow
@pytest.mark.prefect
def test_a_stage_that_fails_is_one_line_and_failed_in_prefect(run_yaml):
    values = yaml.safe_load(run_yaml.read_text())
    values["helpful_sft"]["max_length"] = 8
    run_yaml.write_text(yaml.safe_dump(values))
    done = charter("run", "--config", "run.yaml", cwd=run_yaml.parent)
    assert done.returncode == 2
    assert (
        "error: stage helpful_sft failed with exit code 2: max_length 8: every example is longer"
        in done.stderr
    )
    assert "Traceback" not in done.stderr
    states = {flow: state for flow, _, state in runs_in_prefect(run_yaml.parent / "runs")}
    assert states == {"rlaif": "FAILED", "prompts": "COMPLETED", "helpful-sft": "FAILED"}
    [attempt] = RunDirectory(run_yaml.parent / "runs" / "tiny").attempts()
    assert attempt.status == "failed" and "every example is longer" in attempt.error


@pytest.mark.slow
@pytest.mark.prefect
def test_a_stopped_run_leaves_no_child_and_a_checkpoint_to_go_on_from(run_yaml):
    values = yaml.safe_load(run_yaml.read_text())
    values["helpful_sft"]["epochs"] = 400
    run_yaml.write_text(yaml.safe_dump(values))
    command = [*CHARTER, "run", "--config", "run.yaml", "--to-stage", "helpful_sft"]
    process = subprocess.Popen(
        command,
        cwd=run_yaml.parent,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    directory = run_yaml.parent / "runs" / "tiny"
    deadline = time.monotonic() + 240
    while not list(directory.glob("helpful_sft/*/model/checkpoints/step-*")):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.1)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    # Prefect passes the signal on to the process after its own cleaning up; a shell calls both of them 143.
    assert process.returncode in (143, -signal.SIGTERM), errors
    assert "Traceback" not in errors
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive
    assert [attempt.status for attempt in RunDirectory(directory).attempts()] == ["cancelled"]
    reached = max(int(p.name[5:]) for p in directory.glob("helpful_sft/*/model/checkpoints/step-*"))
    assert reached >= 1
