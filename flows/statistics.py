"""Rates and means with 95% intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

_Z = 1.96
_RESAMPLES = 1000


def wilson(hits: int, n: int) -> tuple[float, float]:
    """95% score interval of a proportion (Wilson 1927); (0, 1) without observations."""
    if n == 0:
        return 0.0, 1.0
    p, z2 = hits / n, _Z * _Z
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    # Rounding may push a bound past the proportion itself at 0 and 1.
    return max(0.0, min(centre - half, p)), min(1.0, max(centre + half, p))


def rate(outcomes: Sequence[bool]) -> dict[str, Any]:
    """`{"value", "n", "low", "high"}` of a yes-or-no outcome, by Wilson; value is None without observations."""
    n, hits = len(outcomes), sum(outcomes)
    low, high = wilson(hits, n)
    return {"value": hits / n if n else None, "n": n, "low": low, "high": high}


def mean(values: Sequence[float], *, seed: int = 0) -> dict[str, Any]:
    """`{"value", "n", "low", "high"}` of a mean, with a percentile bootstrap interval (Efron 1979)."""
    n = len(values)
    if n == 0:
        return {"value": None, "n": 0, "low": None, "high": None}
    import numpy as np

    data = np.asarray(values, dtype=float)
    picks = np.random.default_rng(seed).integers(0, n, size=(_RESAMPLES, n))
    low, high = np.quantile(data[picks].mean(axis=1), [0.025, 0.975])
    return {"value": float(data.mean()), "n": n, "low": float(low), "high": float(high)}
