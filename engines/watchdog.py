"""Runs a server for a process that may die at any moment: when that is gone, the server and all that it started end.

    python watchdog.py PARENT_PID PIPE_FD COMMAND …

The parent holds the other end of the pipe. However the parent ends, kill -9 included, the pipe closes, and the
parent's number is no longer ours. Should this process be killed, the kernel ends the server (Linux). Runs as a file by
itself, so that nothing but the standard library and psutil is loaded beside every server.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence

import psutil

PATIENCE_S = 5.0
"""How long what is left behind may take to end by itself."""
_POLL_S = 0.5
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
# Opened before any fork: loading a library in a forked child may deadlock.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def main(arguments: Sequence[str]) -> int:
    """Runs the command to its end, or to the parent's; returns the command's exit status, negative for a signal."""
    parent, pipe, command = int(arguments[0]), int(arguments[1]), list(arguments[2:])
    # Our whole session is told to end; the server is the one that has to.
    for kind in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(kind, lambda *_: None)
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1)  # what a dead server leaves behind becomes ours
    server = subprocess.Popen(command, preexec_fn=_end_with_parent)
    while server.poll() is None and os.getppid() == parent:
        if select.select([pipe], [], [], _POLL_S)[0]:
            break
    _end_all()
    return server.wait()


def _end_with_parent() -> None:
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _end_all() -> None:
    """Asks everything below this process to end, then ends it."""
    left = psutil.Process().children(recursive=True)
    for kind in (signal.SIGTERM, signal.SIGKILL):
        for process in left:
            try:
                process.send_signal(kind)
            except psutil.Error:
                continue
        _, left = psutil.wait_procs(left, timeout=PATIENCE_S)
        left = [*left, *(p for p in psutil.Process().children(recursive=True) if p not in left)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
