"""From one figure a seed to an interval over seeds, and from that to a verdict.

The unit is the seed: each has a world, samples and training of its own, so a seed's figure carries all of the noise
there is, and with three of them only large and steady effects can be told. Variants are compared within a seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Verdict = Literal["holds", "does not hold", "cannot tell"]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over seeds with its 95% interval by Student's t, n - 1 degrees of freedom; no bounds for one seed."""

    mean: float
    low: float | None
    high: float | None
    values: tuple[float, ...]

    def record(self, digits: int = 4) -> dict[str, Any]:
        """As JSON, rounded."""
        rounded = {key: _rounded(getattr(self, key), digits) for key in ("mean", "low", "high")}
        return {**rounded, "seeds": [round(value, digits) for value in self.values]}

    def text(self, scale: float = 1.0, digits: int = 1) -> str:
        """`mean (low to high)`, or the mean alone, multiplied by `scale`."""
        shown = f"{scale * self.mean:.{digits}f}"
        if self.low is None or self.high is None:
            return shown
        return f"{shown} ({scale * self.low:.{digits}f} to {scale * self.high:.{digits}f})"


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and 95% t interval. Raises ValueError without values."""
    from scipy.stats import t

    n = len(values)
    if n == 0:
        raise ValueError("an estimate needs at least one seed")
    mean = sum(values) / n
    if n == 1:
        return Estimate(mean=mean, low=None, high=None, values=tuple(values))
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1))
    half = float(t.ppf(0.975, n - 1)) * deviation / math.sqrt(n)
    return Estimate(mean=mean, low=mean - half, high=mean + half, values=tuple(values))


def difference(first: Mapping[int, float], second: Mapping[int, float]) -> Estimate | None:
    """Estimate of `first - second` over the seeds that both have; None where there is none."""
    seeds = sorted(first.keys() & second.keys())
    return estimate([first[s] - second[s] for s in seeds]) if seeds else None


def verdict(found: Estimate, *, above: float = 0.0) -> Verdict:
    """Whether the figure is above a bound: the whole interval must lie on one side of it."""
    if found.low is None or found.high is None:
        return "cannot tell"
    if found.low > above:
        return "holds"
    return "does not hold" if found.high < above else "cannot tell"


def both(*verdicts: Verdict) -> Verdict:
    """The verdict of a claim in several parts: it holds when all do, and does not when one does not."""
    if "does not hold" in verdicts:
        return "does not hold"
    return "cannot tell" if "cannot tell" in verdicts else "holds"


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
