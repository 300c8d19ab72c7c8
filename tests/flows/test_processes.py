"""Child processes: their failure in one line, their end with ours, no second writer after a kill."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from flows.errors import StageFailed
from flows.runs.processes import Command, last_error, run_children, stop_stale

ROOT = Path(__file__).parents[2]


def python(script: str) -> list[str]:
    return [sys.executable, "-c", script]


def run(script: str, log: Path, **more) -> None:
    run_children([Command(arguments=python(script), log=log)], what="stage rl", **more)


def wait_for(condition, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def test_output_goes_to_the_log_and_memory_is_reported(tmp_path):
    peaks: list[int] = []
    polls: list[int] = []
    run(
        "import time; print('hello'); x = bytearray(50_000_000); time.sleep(0.6)",
        tmp_path / "log.txt",
        on_poll=lambda: polls.append(1),
        on_exit=peaks.append,
    )
    assert (tmp_path / "log.txt").read_text() == "hello\n"
    assert peaks[0] * 1024 > 50_000_000
    assert polls
    assert not (tmp_path / "log.pid").exists()


def test_a_failure_names_its_last_error_and_its_log(tmp_path):
    script = "import sys; print('step 1'); print('error: model x: no such directory', file=sys.stderr); sys.exit(2)"
    with pytest.raises(StageFailed) as caught:
        run(script, tmp_path / "log.txt")
    assert str(caught.value) == (
        f"stage rl failed with exit code 2: model x: no such directory (log: {tmp_path / 'log.txt'})"
    )


def test_a_traceback_is_told_by_its_last_line(tmp_path):
    with pytest.raises(StageFailed, match=r"exit code 1: ZeroDivisionError: division by zero"):
        run("1/0", tmp_path / "log.txt")


def test_a_kill_is_told_as_what_it_most_often_is(tmp_path):
    script = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    with pytest.raises(StageFailed, match=r"was killed \(SIGKILL; out of memory\?\): it wrote nothing"):
        run(script, tmp_path / "log.txt")


def test_an_earlier_attempt_in_the_log_is_not_quoted(tmp_path):
    log = tmp_path / "log.txt"
    log.write_text("error: of yesterday\n")
    with pytest.raises(StageFailed, match="it wrote nothing"):
        run("import sys; sys.exit(3)", log)


def test_last_error_reads_progress_bars(tmp_path):
    log = tmp_path / "log.txt"
    log.write_text("1%\r2%\rRuntimeError: out of memory\n3%\r4%")
    assert last_error(log) == "RuntimeError: out of memory"


def test_an_interruption_stops_the_child_first(tmp_path):
    class Stop(BaseException):
        pass

    marker = tmp_path / "marker"
    script = f"""
import pathlib, signal, sys, time
def stop(*_):
    pathlib.Path({str(marker)!r}).write_text("saved")
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
print("ready", flush=True)
time.sleep(60)
"""
    log = tmp_path / "log.txt"

    def interrupt() -> None:
        if log.read_text():
            raise Stop

    with pytest.raises(Stop):
        run(script, log, on_poll=interrupt)
    assert marker.read_text() == "saved"


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's death signal is Linux's")
def test_a_killed_parent_takes_its_child_along(tmp_path):
    log = tmp_path / "log.txt"
    script = (
        "from pathlib import Path\nfrom flows.runs.processes import Command, run_children\n"
        f"run_children([Command(arguments=['sleep', '60'], log=Path({str(log)!r}))], what='x')"
    )
    parent = subprocess.Popen(python(script), cwd=ROOT)
    wait_for(lambda: (tmp_path / "log.pid").exists() and (tmp_path / "log.pid").read_text())
    child = psutil.Process(int((tmp_path / "log.pid").read_text().split()[0]))
    parent.kill()
    parent.wait()
    wait_for(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_a_stale_child_is_ended_before_a_new_one_starts(tmp_path):
    orphan = subprocess.Popen(["sleep", "60"])
    (tmp_path / "log.pid").write_text(f"{orphan.pid} {psutil.Process(orphan.pid).create_time()}")
    run("print('new')", tmp_path / "log.txt")
    assert orphan.wait(5) is not None


def test_a_stranger_with_a_recycled_pid_is_left_alone(tmp_path):
    (tmp_path / "log.pid").write_text(f"{os.getpid()} 12.0")
    stop_stale(tmp_path / "log.pid")
    assert not (tmp_path / "log.pid").exists()


def test_side_by_side_and_one_that_fails_stops_the_others(tmp_path):
    logs = [tmp_path / f"log-{n}.txt" for n in range(3)]
    scripts = ["import time; time.sleep(60)", "import time; time.sleep(0.5); raise ValueError('bad part')"]
    commands = [Command(arguments=python(s), log=log) for s, log in zip(scripts, logs, strict=False)]
    began = time.monotonic()
    with pytest.raises(StageFailed, match=r"ValueError: bad part \(log: .*log-1\.txt\)"):
        run_children(commands, what="stage pairs")
    assert time.monotonic() - began < 30
    assert not list(tmp_path.glob("*.pid"))


def test_each_child_has_its_own_environment(tmp_path):
    commands = [
        Command(
            arguments=python("import os; print(os.environ['CHARTER_RANK'])"),
            log=tmp_path / f"log-{rank}.txt",
            env={"CHARTER_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    run_children(commands, what="stage pairs")
    assert [(tmp_path / f"log-{rank}.txt").read_text() for rank in range(2)] == ["0\n", "1\n"]
