"""Stopping a run that is no longer training: losses that are not finite, or ran away."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from training.errors import Diverged


class DivergenceGuard:
    """Compares each loss with the mean of the first ten.

    A single loss above `factor` times that mean may be a hard batch; three in a row are a divergence.
    """

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self.first: list[float] = []
        self.high = 0

    def problem(self, loss: float, grad_norm: float) -> str | None:
        """What is wrong after a backward pass, or None."""
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        if not math.isfinite(grad_norm):
            return f"the gradient's norm is {grad_norm}"
        if len(self.first) < 10:
            self.first.append(loss)
            return None
        baseline = abs(sum(self.first) / len(self.first))
        self.high = self.high + 1 if loss > self.factor * max(baseline, 1e-3) else 0
        if self.high >= 3:
            return f"the loss {loss:.4g} was over {self.factor:g} times its first mean {baseline:.4g} for 3 steps"
        return None

    def state(self) -> dict[str, Any]:
        return {"first": self.first, "high": self.high}

    def load(self, state: dict[str, Any]) -> None:
        self.first, self.high = list(state["first"]), state["high"]


def stop_diverged(output_dir: Path, step: int, problem: str, batch: list[Any]) -> None:
    """Save the batch (anything JSON can hold) as `diverged.json` and raise Diverged."""
    path = output_dir / "diverged.json"
    temporary = path.with_suffix(".tmp")
    record = {"step": step, "problem": problem, "batch": batch}
    temporary.write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8")
    os.replace(temporary, path)
    raise Diverged(
        f"step {step}: {problem}; the batch is in {path}; lower the learning rate or look at the data"
    )
