"""Rates and means with 95% intervals, and tests of them."""

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


def bounded_mean(values: Sequence[float]) -> dict[str, Any]:
    """`{"value", "n", "low", "high"}` of a mean of independent values in [0, 1], such as wins with ties as halves.

    A score interval: all theta whose distance from the mean is at most z standard errors, where the variance under
    theta is theta (1 - theta) less what the values' own variance s2 falls short of it, that shortfall shrunk by
    n / (n + z2). With k = z2 / n the bounds are (2m + k -+ sqrt(k2 + 4 k s2)) / (2 (1 + k)). Of zeros and ones it is
    Wilson's interval; ties make it narrower, and it keeps a width when all values are the same.
    """
    n = len(values)
    if n == 0:
        return {"value": None, "n": 0, "low": 0.0, "high": 1.0}
    m = sum(values) / n
    variance = sum((v - m) ** 2 for v in values) / n
    k = _Z * _Z / n
    half = math.sqrt(k * k + 4 * k * variance)
    low, high = ((2 * m + k + sign * half) / (2 * (1 + k)) for sign in (-1, 1))
    return {"value": m, "n": n, "low": max(0.0, min(low, m)), "high": min(1.0, max(high, m))}


def away_from_half(values: Sequence[float]) -> float | None:
    """Two-sided p-value of a mean of independent values in [0, 1] against one half; None without observations.

    The score test that `bounded_mean` inverts: z is where that interval just touches one half, so that
    z2 / n = sqrt(4 s4 + (1 - 2m)2) - 2 s2. Of zeros and ones that is z = |m - 1/2| / sqrt(1 / 4n), the test of a
    proportion. Normal approximation: below some ten values it finds too much.
    """
    n = len(values)
    if n == 0:
        return None
    m = sum(values) / n
    variance = sum((v - m) ** 2 for v in values) / n
    k = math.sqrt(4 * variance**2 + (1 - 2 * m) ** 2) - 2 * variance
    return math.erfc(math.sqrt(max(0.0, k) * n / 2))


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for being many, in the order given (Benjamini and Hochberg 1995).

    Of the hypotheses whose adjusted value is below q, at most a share q is expected to be false finds, where the
    tests are independent or positively dependent (Benjamini and Yekutieli 2001).
    """
    n = len(p_values)
    adjusted = [1.0] * n
    lowest = 1.0
    for rank, index in zip(range(n, 0, -1), sorted(range(n), key=lambda i: -p_values[i]), strict=True):
        lowest = min(lowest, p_values[index] * n / rank)
        adjusted[index] = lowest
    return adjusted


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
