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
from flows.processes import PID_FILE, last_error, run_child, stop_stale

ROOT = Path(__file__).parents[2]


def python(script: str) -> list[str]:
    return [sys.executable, "-c", script]


def wait_for(condition, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def test_output_goes_to_the_log_and_memory_is_reported(tmp_path):
    peaks: list[int] = []
    polls: list[int] = []
    run_child(
        python("import time; print('hello'); x = bytearray(50_000_000); time.sleep(0.6)"),
        log=tmp_path / "log.txt",
        what="stage x",
        on_poll=lambda: polls.append(1),
        on_exit=peaks.append,
    )
    assert (tmp_path / "log.txt").read_text() == "hello\n"
    assert peaks[0] * 1024 > 50_000_000
    assert polls
    assert not (tmp_path / PID_FILE).exists()


def test_a_failure_names_its_last_error_and_its_log(tmp_path):
    script = "import sys; print('step 1'); print('error: model x: no such directory', file=sys.stderr); sys.exit(2)"
    with pytest.raises(StageFailed) as caught:
        run_child(python(script), log=tmp_path / "log.txt", what="stage rl")
    assert str(caught.value) == (
        f"stage rl failed with exit code 2: model x: no such directory (log: {tmp_path / 'log.txt'})"
    )


def test_a_traceback_is_told_by_its_last_line(tmp_path):
    with pytest.raises(StageFailed, match=r"exit code 1: ZeroDivisionError: division by zero"):
        run_child(python("1/0"), log=tmp_path / "log.txt", what="stage rl")


def test_a_kill_is_told_as_what_it_most_often_is(tmp_path):
    script = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    with pytest.raises(StageFailed, match=r"was killed \(SIGKILL; out of memory\?\): it wrote nothing"):
        run_child(python(script), log=tmp_path / "log.txt", what="stage rl")


def test_an_earlier_attempt_in_the_log_is_not_quoted(tmp_path):
    log = tmp_path / "log.txt"
    log.write_text("error: of yesterday\n")
    with pytest.raises(StageFailed, match="it wrote nothing"):
        run_child(python("import sys; sys.exit(3)"), log=log, what="stage rl")


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
        run_child(python(script), log=log, what="stage rl", on_poll=interrupt)
    assert marker.read_text() == "saved"


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's death signal is Linux's")
def test_a_killed_parent_takes_its_child_along(tmp_path):
    log = tmp_path / "log.txt"
    script = (
        "from pathlib import Path\nfrom flows.processes import run_child\n"
        f"run_child(['sleep', '60'], log=Path({str(log)!r}), what='x')"
    )
    parent = subprocess.Popen(python(script), cwd=ROOT)
    wait_for(lambda: (tmp_path / PID_FILE).exists() and (tmp_path / PID_FILE).read_text())
    child = psutil.Process(int((tmp_path / PID_FILE).read_text().split()[0]))
    parent.kill()
    parent.wait()
    wait_for(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_a_stale_child_is_ended_before_a_new_one_starts(tmp_path):
    orphan = subprocess.Popen(["sleep", "60"])
    (tmp_path / PID_FILE).write_text(f"{orphan.pid} {psutil.Process(orphan.pid).create_time()}")
    run_child(python("print('new')"), log=tmp_path / "log.txt", what="stage rl")
    assert orphan.wait(5) is not None


def test_a_stranger_with_a_recycled_pid_is_left_alone(tmp_path):
    (tmp_path / PID_FILE).write_text(f"{os.getpid()} 12.0")
    stop_stale(tmp_path / PID_FILE)
    assert not (tmp_path / PID_FILE).exists()
