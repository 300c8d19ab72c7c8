"""Stopping a run that is no longer training: numbers that are not finite, a loss or a policy that ran away."""

from __future__ import annotations

import math
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed

from common.files import write_jsonl
from training.errors import Diverged

if TYPE_CHECKING:
    from training.run.runtime import Runtime


class DivergenceGuard:
    """Compares each loss with the first one, which no update has touched.

    A single loss above `factor` times the first may be a hard batch; three in a row are a divergence.
    """

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self.first: float | None = None
        self.high = 0

    def problem(self, loss: float, grad_norm: float) -> str | None:
        """What is wrong after a backward pass, or None."""
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        if not math.isfinite(grad_norm):
            return f"the gradient's norm is {grad_norm}"
        if self.first is None:
            self.first = loss
        self.high = self.high + 1 if loss > self.factor * max(abs(self.first), 1e-3) else 0
        if self.high >= 3:
            return f"the loss, now {loss:.4g}, was over {self.factor:g} times the first, {self.first:.4g}, 3 times"
        return None

    def state(self) -> dict[str, Any]:
        return {"first": self.first, "high": self.high}

    def load(self, state: dict[str, Any]) -> None:
        self.first, self.high = state["first"], state["high"]


class KLGuard:
    """Compares a policy with its reference; its losses hover about zero and say little.

    Where a token is on average more than `limit` nats less likely to the reference than to the policy, the answers
    are noise. Three such steps in a row are a divergence.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.high = 0

    def problem(self, kl_per_token: float) -> str | None:
        """What is wrong with a step's answers, or None."""
        if not math.isfinite(kl_per_token):
            return f"the KL per token is {kl_per_token}"
        self.high = self.high + 1 if kl_per_token > self.limit else 0
        if self.high >= 3:
            return f"the KL per token, now {kl_per_token:.4g} nats, was over {self.limit:g} 3 times"
        return None


def stop_diverged(runtime: Runtime, output_dir: Path, step: int, problem: str, batch: list[Any]) -> None:
    """Save the batch (anything JSON can hold) as `diverged.json` and raise Diverged. Every process must call this.

    The main process writes; the others wait for it, since a launcher ends all processes when one has ended.
    """
    path = output_dir / "diverged.json"
    if runtime.is_main:
        write_jsonl(path, [{"step": step, "problem": problem, "batch": batch}])
    runtime.barrier()
    raise Diverged(
        f"step {step}: {problem}; the batch is in {path}; lower the learning rate or look at the data"
    )


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
