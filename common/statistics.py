"""Rates and means with 95% intervals, and tests of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

_Z = 1.96
_RESAMPLES = 1000
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


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


def bounded_mean(values: Sequence[float], *, bounds: tuple[float, float] = (0.0, 1.0)) -> dict[str, Any]:
    """`{"value", "n", "low", "high"}` of a mean of independent values within `bounds`, such as wins, ties as halves.

    A score interval, of values in [0, 1]: all theta whose distance from the mean is at most z standard errors, where
    the variance under theta is theta (1 - theta) less what the values' own variance s2 falls short of it, that
    shortfall shrunk by n / (n + z2). With k = z2 / n the bounds are (2m + k -+ sqrt(k2 + 4 k s2)) / (2 (1 + k)). Of
    zeros and ones it is Wilson's interval; ties make it narrower, and it keeps a width when all values are the same.
    Without observations it is all that is possible.
    """
    n, (bottom, top) = len(values), bounds
    if n == 0:
        return {"value": None, "n": 0, "low": bottom, "high": top}
    value, span = sum(values) / n, top - bottom
    m = (value - bottom) / span
    variance = sum((v - value) ** 2 for v in values) / n / span**2
    k = _Z * _Z / n
    half = math.sqrt(k * k + 4 * k * variance)
    low, high = (bottom + span * (2 * m + k + sign * half) / (2 * (1 + k)) for sign in (-1, 1))
    return {"value": value, "n": n, "low": max(bottom, min(low, value)), "high": min(top, max(high, value))}


def difference(a: dict[str, Any], b: dict[str, Any], *, correlation: float = 0.0) -> dict[str, Any]:
    """`{"value", "n", "low", "high"}` of mean a less mean b, from the two means with their own intervals.

    Newcombe 1998 (Statistics in Medicine 17:873, method 10, and 17:2635 for pairs, whose values have the
    `correlation`): as far as the two bounds lie away from the two means, added like the sides of a triangle.
    """
    value = a["value"] - b["value"]
    down, up = a["value"] - a["low"], a["high"] - a["value"]
    down_b, up_b = b["value"] - b["low"], b["high"] - b["value"]
    below = math.sqrt(max(0.0, down**2 + up_b**2 - 2 * correlation * down * up_b))
    above = math.sqrt(max(0.0, up**2 + down_b**2 - 2 * correlation * up * down_b))
    return {"value": value, "n": min(a["n"], b["n"]), "low": value - below, "high": value + above}


def correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Pearson's correlation of paired values; 0 where one side is constant."""
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    spread = sum((x - mean_a) ** 2 for x in a) * sum((y - mean_b) ** 2 for y in b)
    together = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    return together / math.sqrt(spread) if spread > 0 else 0.0


def student_mean(values: Sequence[float]) -> dict[str, Any]:
    """`{"value", "n", "low", "high"}` of a mean by Student's t; the bounds are None below two observations."""
    n = len(values)
    value = sum(values) / n if n else None
    if value is None or n < 2:
        return {"value": value, "n": n, "low": None, "high": None}
    half = t_quantile(n - 1) * math.sqrt(sum((v - value) ** 2 for v in values) / (n - 1) / n)
    return {"value": value, "n": n, "low": value - half, "high": value + half}


def t_quantile(freedom: float) -> float:
    """The 97.5% quantile of Student's t with at least one degree of freedom.

    A table below ten degrees, which are rounded down, then the expansion in powers of 1 / freedom, exact to 0.003
    (Abramowitz and Stegun 26.7.5).
    """
    if freedom < 10:
        return _T[int(freedom) - 1]
    z = _Z
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


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
