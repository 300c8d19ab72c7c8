"""Child processes that train or sample: started, watched, stopped, and their failure told in one line.

A child dies with its parent: on Linux the kernel sends it SIGTERM when the parent is killed, so that a
resumed run never meets a second writer; elsewhere (and for a child that ignores it) `stop_stale` ends the one
noted in the pid file.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from flows.errors import StageFailed
from flows.files import write_atomically

PID_FILE = "child.pid"
TERMINATE_SECONDS = 60.0  # long enough to write a checkpoint of a large model
_PR_SET_PDEATHSIG = 1
_ERROR_TAIL_BYTES = 65536
# Opened before any fork: loading a library in a forked child of a threaded process may deadlock.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def run_child(
    arguments: Sequence[str],
    *,
    log: Path,
    what: str,
    env: Mapping[str, str] | None = None,
    on_poll: Callable[[], None] | None = None,
    on_exit: Callable[[int], None] | None = None,
    poll_seconds: float = 0.25,
) -> None:
    """Run a command to its end; stdout and stderr are appended to `log`.

    `on_poll` is called while it runs (to relay progress), `on_exit` with its ru_maxrss. When this process is
    interrupted (Ctrl-C, SIGTERM turned into an exception, a cancelled flow) the child gets SIGTERM and time to
    write a checkpoint before the exception goes on.

    Raises StageFailed with the log's last telling line when the exit code is not 0.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    pid_file = log.with_name(PID_FILE)
    stop_stale(pid_file)
    start = log.stat().st_size if log.exists() else 0
    with log.open("ab") as output:
        child = subprocess.Popen(
            list(arguments),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            start_new_session=True,  # a terminal's Ctrl-C reaches the child through us, once
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )
    try:
        write_atomically(pid_file, f"{child.pid} {psutil.Process(child.pid).create_time()}")
        code, peak = _wait(child, on_poll, poll_seconds)
    except BaseException:
        _stop(child)
        raise
    finally:
        pid_file.unlink(missing_ok=True)
    if on_exit is not None:
        on_exit(peak)
    if code != 0:
        raise StageFailed(f"{what} {describe_exit(code)}: {last_error(log, start)} (log: {log})")


def stop_stale(pid_file: Path) -> None:
    """End the child of an earlier, killed run, if it still lives."""
    try:
        pid, created = pid_file.read_text(encoding="utf-8").split()
        process = psutil.Process(int(pid))
        if abs(process.create_time() - float(created)) < 1.0:
            process.terminate()
            try:
                process.wait(TERMINATE_SECONDS)
            except psutil.TimeoutExpired:
                process.kill()
                process.wait(10)
    except (OSError, ValueError, psutil.Error):
        pass  # no file, or nobody of that number any more
    pid_file.unlink(missing_ok=True)


def describe_exit(code: int) -> str:
    """An exit code in words; a death by SIGKILL is most often the kernel's answer to too much memory."""
    if code == -signal.SIGKILL:
        return "was killed (SIGKILL; out of memory?)"
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"failed with exit code {code}"


def last_error(log: Path, start: int = 0) -> str:
    """The last line of a log that names an error, or simply its last line; `start` is where to begin."""
    with log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(start, size - _ERROR_TAIL_BYTES))
        text = file.read().decode("utf-8", errors="replace")
    lines = [line.strip() for line in text.replace("\r", "\n").split("\n") if line.strip()]
    for line in reversed(lines):
        head = line.split(":", 1)[0]
        if head == "error" or head.rpartition(".")[2].endswith(("Error", "Exception")):
            return line.removeprefix("error: ")
    return lines[-1] if lines else "it wrote nothing"


def _wait(
    child: subprocess.Popen[bytes], on_poll: Callable[[], None] | None, poll_seconds: float
) -> tuple[int, int]:
    while True:
        pid, status, usage = os.wait4(child.pid, os.WNOHANG)
        if pid:
            child.returncode = os.waitstatus_to_exitcode(status)
            return child.returncode, usage.ru_maxrss
        if on_poll is not None:
            on_poll()
        time.sleep(poll_seconds)


def _stop(child: subprocess.Popen[bytes]) -> None:
    """SIGTERM to the child's whole session, then SIGKILL to what is left of it."""
    if child.poll() is not None:
        return
    os.killpg(child.pid, signal.SIGTERM)
    try:
        child.wait(TERMINATE_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _die_with_parent() -> None:
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
