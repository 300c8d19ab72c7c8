"""Rates, means and differences with 95% intervals, and tests of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, TypeVar

from common.record import Record

Z = 1.96
"""Standard errors to either side of a 95% interval; with this many digits all figures of earlier runs were made."""
NORMAL = 1.959963984540054
"""The same with all its digits: the 97.5% quantile of the normal distribution."""
RESAMPLES = 1000
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
Kind = TypeVar("Kind", bound=Hashable)


@dataclass(frozen=True, kw_only=True)
class Estimate(Record):
    """A figure of `n` observations with its 95% interval; `value` is None without observations.

    The bounds are None where nothing can be said of them, or all that is possible.
    """

    value: float | None
    n: int
    low: float | None
    high: float | None

    @property
    def known(self) -> Self | None:
        """Itself, or None without a value."""
        return None if self.value is None else self

    def shifted(self, by: float) -> Self:
        """The same so much higher."""
        value, low, high = (None if v is None else v + by for v in (self.value, self.low, self.high))
        return replace(self, value=value, low=low, high=high)

    def scaled(self, factor: float) -> tuple[float, float, float]:
        """(value, low, high) times a factor, such as 100 for per cent. Raises TypeError where one is unknown."""
        return factor * self.value, factor * self.low, factor * self.high  # type: ignore[operator]


@dataclass(frozen=True, kw_only=True)
class Share(Estimate):
    """The same of a proportion, kept as `{"hits", "of", "share", "low", "high"}`."""

    @property
    def hits(self) -> int:
        """How many there were."""
        return round((self.value or 0.0) * self.n)

    def to_json(self) -> dict[str, Any]:
        """See the class."""
        return {"hits": self.hits, "of": self.n, "share": self.value, "low": self.low, "high": self.high}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """See the class."""
        return cls(value=data["share"], n=data["of"], low=data["low"], high=data["high"])


def wilson(hits: int, n: int, *, z: float = Z) -> tuple[float, float]:
    """95% score interval of a proportion (Wilson 1927); (0, 1) without observations."""
    if n == 0:
        return 0.0, 1.0
    p, z2 = hits / n, z * z
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = z * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    # Rounding may push a bound past the proportion itself at 0 and 1.
    return max(0.0, min(centre - half, p)), min(1.0, max(centre + half, p))


def rate(outcomes: Sequence[bool]) -> Estimate:
    """The share of a yes-or-no outcome, by Wilson."""
    n, hits = len(outcomes), sum(outcomes)
    low, high = wilson(hits, n)
    return Estimate(value=hits / n if n else None, n=n, low=low, high=high)


def share(hits: int, of: int) -> Share:
    """The same from counts."""
    low, high = wilson(hits, of, z=NORMAL)
    return Share(value=hits / of if of else None, n=of, low=low, high=high)


def bounded_mean(values: Sequence[float], *, bounds: tuple[float, float] = (0.0, 1.0)) -> Estimate:
    """A mean of independent values within `bounds`, such as wins, ties as halves.

    A score interval, of values in [0, 1]: all theta whose distance from the mean is at most z standard errors, where
    the variance under theta is theta (1 - theta) less what the values' own variance s2 falls short of it, that
    shortfall shrunk by n / (n + z2). With k = z2 / n the bounds are (2m + k -+ sqrt(k2 + 4 k s2)) / (2 (1 + k)). Of
    zeros and ones it is Wilson's interval; ties make it narrower, and it keeps a width when all values are the same.
    Without observations it is all that is possible.
    """
    n, (bottom, top) = len(values), bounds
    if n == 0:
        return Estimate(value=None, n=0, low=bottom, high=top)
    value, span = sum(values) / n, top - bottom
    m = (value - bottom) / span
    variance = sum((v - value) ** 2 for v in values) / n / span**2
    k = Z * Z / n
    half = math.sqrt(k * k + 4 * k * variance)
    low, high = (bottom + span * (2 * m + k + sign * half) / (2 * (1 + k)) for sign in (-1, 1))
    return Estimate(value=value, n=n, low=max(bottom, min(low, value)), high=min(top, max(high, value)))


def student_mean(values: Sequence[float]) -> Estimate:
    """A mean by Student's t; the bounds are None below two observations."""
    n = len(values)
    value = sum(values) / n if n else None
    if value is None or n < 2:
        return Estimate(value=value, n=n, low=None, high=None)
    half = t_quantile(n - 1) * math.sqrt(sum((v - value) ** 2 for v in values) / (n - 1) / n)
    return Estimate(value=value, n=n, low=value - half, high=value + half)


def mean(values: Sequence[float], *, seed: int = 0) -> Estimate:
    """A mean with a percentile bootstrap interval (Efron 1979)."""
    n = len(values)
    if n == 0:
        return Estimate(value=None, n=0, low=None, high=None)
    import numpy as np

    data = np.asarray(values, dtype=float)
    picks = np.random.default_rng(seed).integers(0, n, size=(RESAMPLES, n))
    low, high = np.quantile(data[picks].mean(axis=1), [0.025, 0.975])
    return Estimate(value=float(data.mean()), n=n, low=float(low), high=float(high))


def with_interval(
    counts: Mapping[Kind, int], statistic: Callable[[Mapping[Kind, int]], float], *, seed: int = 0
) -> Estimate:
    """A statistic with a percentile bootstrap interval over units (Efron 1979).

    `counts` says how often each kind of unit came; `statistic` is computed from such counts. Where all units are
    of one kind the interval has no width: report the plain share with its own interval beside it. Raises
    ValueError when the statistic has nothing to work on.
    """
    import numpy as np

    kinds = sorted((kind for kind, n in counts.items() if n), key=repr)
    total = sum(counts[kind] for kind in kinds)
    value = statistic({kind: counts[kind] for kind in kinds})
    draws = np.random.default_rng(seed).multinomial(
        total, [counts[kind] / total for kind in kinds], size=RESAMPLES
    )
    found = [statistic({k: int(n) for k, n in zip(kinds, draw, strict=True) if n}) for draw in draws]
    low, high = np.quantile(found, [0.025, 0.975])
    return Estimate(value=value, n=total, low=min(value, float(low)), high=max(value, float(high)))


def difference(a: Estimate, b: Estimate, *, correlation: float = 0.0) -> Estimate:
    """Mean a less mean b, from the two means with their own intervals.

    Newcombe 1998 (Statistics in Medicine 17:873, method 10, and 17:2635 for pairs, whose values have the
    `correlation`): as far as the two bounds lie away from the two means, added like the sides of a triangle.
    """
    (value, low, high), (value_b, low_b, high_b) = a.scaled(1), b.scaled(1)
    down, up, down_b, up_b = value - low, high - value, value_b - low_b, high_b - value_b
    below = math.sqrt(max(0.0, down**2 + up_b**2 - 2 * correlation * down * up_b))
    above = math.sqrt(max(0.0, up**2 + down_b**2 - 2 * correlation * up * down_b))
    gap = value - value_b
    return Estimate(value=gap, n=min(a.n, b.n), low=gap - below, high=gap + above)


def correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Pearson's correlation of paired values; 0 where one side is constant."""
    from scipy.stats import pearsonr

    return 0.0 if len(set(a)) < 2 or len(set(b)) < 2 else float(pearsonr(a, b).statistic)


@dataclass(frozen=True, kw_only=True)
class RankCorrelation(Record):
    """Spearman's rho of `n` pairs with its two-sided p-value; both None where there is no order to speak of."""

    value: float | None
    p: float | None
    n: int


def rank_correlation(x: Sequence[float], y: Sequence[float], *, seed: int = 0) -> RankCorrelation:
    """Whether one figure rises with another, by rank: Spearman's rho (1904), ties with their mean rank.

    The p-value is the share of orders of `y` under which rho is at least as far from zero: of all orders up to 7
    values, else of 9,999 random ones and the one seen (Phipson and Smyth 2010). Both are None below 3 values or where
    all of one side are equal. Of n values no p-value is below 2 / n!.
    """
    n = len(x)
    if n < 3 or len(set(x)) < 2 or len(set(y)) < 2:
        return RankCorrelation(value=None, p=None, n=n)
    import numpy as np
    from scipy.stats import permutation_test, rankdata, spearmanr

    a = rankdata(x)
    a -= a.mean()

    def together(order: Any, axis: int = -1) -> Any:
        return np.abs(np.sum(a * order, axis=axis))  # as far from zero as rho is, which has the same scale

    # permutation_test looks at all orders where these are fewer than it may draw.
    found = permutation_test(
        (rankdata(y) - (n + 1) / 2,),
        together,
        permutation_type="pairings",
        alternative="greater",
        vectorized=True,
        n_resamples=math.factorial(7) if n <= 7 else 9_999,
        rng=np.random.default_rng(seed),
    )
    return RankCorrelation(value=float(spearmanr(x, y).statistic), p=float(found.pvalue), n=n)


def t_quantile(freedom: float) -> float:
    """The 97.5% quantile of Student's t with at least one degree of freedom.

    A table below ten degrees, which are rounded down, then the expansion in powers of 1 / freedom, exact to 0.003
    (Abramowitz and Stegun 26.7.5).
    """
    if freedom < 10:
        return _T[int(freedom) - 1]
    return Z + (Z**3 + Z) / (4 * freedom) + (5 * Z**5 + 16 * Z**3 + 3 * Z) / (96 * freedom**2)


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
    from scipy.stats import false_discovery_control

    return [float(p) for p in false_discovery_control(p_values)] if p_values else []
