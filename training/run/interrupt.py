"""SIGTERM and the first Ctrl-C as a request: finish the step, write a checkpoint, stop."""

from __future__ import annotations

import signal
import threading
from types import FrameType

import torch
import torch.distributed


class StopRequest:
    """A context manager that notes SIGTERM and SIGINT instead of dying of them.

    `agreed()` is asked once per optimiser step and gives the signal's number, or None. Processes that train
    together receive a signal at different moments: they agree through an all-reduce, so that all stop after
    the same step. A second Ctrl-C stops at once. Outside the main thread signals are left alone.
    """

    def __init__(self) -> None:
        self.signum = 0
        self._previous: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if signum == signal.SIGINT and self.signum == signal.SIGINT:
            raise KeyboardInterrupt
        self.signum = signum

    def agreed(self) -> int | None:
        """The signal that any process received, known to all of them after the same step; or None."""
        signum = self.signum
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            backend = torch.distributed.get_backend()
            device = torch.device("cuda", torch.cuda.current_device()) if "nccl" in backend else "cpu"
            flag = torch.tensor(signum, device=device)
            torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
            signum = int(flag)
        return signum or None
