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
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from common.files import write_atomically
from flows.errors import StageFailed

TERMINATE_SECONDS = 60.0  # long enough to write a checkpoint of a large model
_PR_SET_PDEATHSIG = 1
_ERROR_TAIL_BYTES = 65536
# Opened before any fork: loading a library in a forked child of a threaded process may deadlock.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command line, the file that its output is appended to, and what its environment has beside ours."""

    arguments: Sequence[str]
    log: Path
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def pid_file(self) -> Path:
        return self.log.with_suffix(".pid")


def run_children(
    commands: Sequence[Command],
    *,
    what: str,
    on_poll: Callable[[], None] | None = None,
    on_exit: Callable[[int], None] | None = None,
    poll_seconds: float = 0.25,
) -> None:
    """Run commands side by side to their end.

    `on_poll` is called while they run (to relay progress), `on_exit` with the ru_maxrss of each that ended. When
    this process is interrupted (Ctrl-C, SIGTERM turned into an exception, a cancelled flow) the children get
    SIGTERM and time to write a checkpoint before the exception goes on.

    Raises StageFailed with the last telling line of the log when an exit code is not 0; the others are stopped.
    """
    running: dict[subprocess.Popen[bytes], tuple[Command, int]] = {}
    try:
        for command in commands:
            stop_stale(command.pid_file)
            start = command.log.stat().st_size if command.log.exists() else 0
            running[_start(command)] = (command, start)
        while running:
            for child in list(running):
                pid, status, usage = os.wait4(child.pid, os.WNOHANG)
                if not pid:
                    continue
                child.returncode = os.waitstatus_to_exitcode(status)
                command, start = running.pop(child)
                command.pid_file.unlink(missing_ok=True)
                if on_exit is not None:
                    on_exit(usage.ru_maxrss)
                if child.returncode != 0:
                    told = f"{describe_exit(child.returncode)}: {last_error(command.log, start)}"
                    raise StageFailed(f"{what} {told} (log: {command.log})")
            if on_poll is not None:
                on_poll()
            if running:
                time.sleep(poll_seconds)
    except BaseException:
        _stop(list(running))
        for command, _ in running.values():
            command.pid_file.unlink(missing_ok=True)
        raise


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


def _start(command: Command) -> subprocess.Popen[bytes]:
    command.log.parent.mkdir(parents=True, exist_ok=True)
    with command.log.open("ab") as output:
        child = subprocess.Popen(
            list(command.arguments),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **command.env},
            start_new_session=True,  # a terminal's Ctrl-C reaches the child through us, once
            preexec_fn=die_with_parent,
        )
    write_atomically(command.pid_file, f"{child.pid} {psutil.Process(child.pid).create_time()}")
    return child


def _stop(children: Sequence[subprocess.Popen[bytes]]) -> None:
    """SIGTERM to the children's whole sessions, then SIGKILL to what is left of them."""
    alive = [child for child in children if child.poll() is None]
    for child in alive:
        os.killpg(child.pid, signal.SIGTERM)
    deadline = time.monotonic() + TERMINATE_SECONDS
    for child in alive:
        try:
            child.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def die_with_parent() -> None:
    """In a new child: have the kernel send SIGTERM when the parent dies (Linux; elsewhere nothing)."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def stop_with_parent() -> None:
    """In a flow's process that a runner or worker started: stop when that is killed.

    Left alone, it would go on in a run directory that the restarted worker's next run wants.
    """
    if "PREFECT__FLOW_RUN_ID" in os.environ or "PREFECT__FLOW_ID" in os.environ:
        die_with_parent()
