"""Intervals of shares, means and differences: against Wilson, Newcombe, Student, and in simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from common.statistics import (
    Estimate,
    bounded_mean,
    correlation,
    difference,
    mean,
    rank_correlation,
    share,
    student_mean,
    t_quantile,
    wilson,
)


def test_the_interval_of_zeros_and_ones_is_wilsons():
    for hits, n in ((0, 7), (3, 7), (19, 20), (50, 100)):
        found = bounded_mean([1.0] * hits + [0.0] * (n - hits))
        assert (found.low, found.high) == pytest.approx(wilson(hits, n), abs=1e-12)
        # The constant is 1.96 here and 1.95996 there.
        assert (found.low, found.high) == pytest.approx(
            proportion_confint(hits, n, method="wilson"), abs=1e-5
        )
    ties = bounded_mean([0.5] * 10)
    assert ties.low < 0.5 < ties.high
    assert bounded_mean([]) == Estimate(value=None, n=0, low=0.0, high=1.0)
    assert share(19, 20).low == pytest.approx(proportion_confint(19, 20, method="wilson")[0], abs=1e-12)


@pytest.mark.parametrize("n", [20, 60, 200])
@pytest.mark.parametrize("win,tie", [(0.5, 0.0), (0.55, 0.3), (0.1, 0.05), (0.05, 0.85)])
def test_win_rate_intervals_cover_at_their_nominal_rate(n, win, tie):
    rng = np.random.default_rng(n)
    truth = win + tie / 2
    drawn = rng.choice([1.0, 0.5, 0.0], size=(800, n), p=[win, tie, 1 - win - tie])
    covered = sum((f := bounded_mean(row)).low <= truth <= f.high for row in drawn.tolist()) / 800
    # Of few values that are nearly all ties the interval is wider than it need be.
    assert 0.925 <= covered <= (0.99 if tie < 0.5 else 1.0)


@pytest.mark.parametrize("share", [0.01, 0.02, 0.1])
def test_intervals_of_small_shares_cover_and_keep_a_width(share):
    found = [bounded_mean([1.0] * hits + [0.0] * (100 - hits)) for hits in range(101)]
    chance = stats.binom.pmf(np.arange(101), 100, share)
    covered = sum(c for f, c in zip(found, chance, strict=True) if f.low <= share <= f.high)
    assert covered >= 0.92
    assert bounded_mean([0.0] * 100).high == pytest.approx(0.037, abs=0.001)
    plain, signed = found[7], bounded_mean([1.0] * 7 + [-1.0] * 93, bounds=(-1.0, 1.0))
    assert signed.scaled(1) == pytest.approx([2 * bound - 1 for bound in plain.scaled(1)])


def test_the_difference_of_two_shares_is_newcombes():
    # Newcombe 1998, 17:873, table II: 56/70 against 48/80 has (0.0524, 0.3339), 9/10 against 3/10 (0.1705, 0.8090).
    for (x, n), (y, m), expected in (
        ((56, 70), (48, 80), (0.0524, 0.3339)),
        ((9, 10), (3, 10), (0.1705, 0.8090)),
    ):
        a, b = (bounded_mean([1.0] * hits + [0.0] * (of - hits)) for hits, of in ((x, n), (y, m)))
        found = difference(a, b)
        assert (found.low, found.high) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("n", [10, 30, 100])
@pytest.mark.parametrize(
    "p,q,shared", [(0.02, 0.02, 0.0), (0.3, 0.3, 0.6), (0.05, 0.1, 0.0), (0.3, 0.5, 0.6)]
)
def test_intervals_of_paired_differences_of_shares_cover(n, p, q, shared):
    rng = np.random.default_rng(n)
    covered = 0
    for _ in range(500):
        u = rng.random(n)
        v = np.where(rng.random(n) < shared, u, rng.random(n))
        a, b = (u < p).astype(float).tolist(), (v < q).astype(float).tolist()
        found = difference(bounded_mean(a), bounded_mean(b), correlation=correlation(a, b))
        covered += found.low <= p - q <= found.high
    assert covered / 500 >= 0.91


def test_students_interval_is_scipys():
    for freedom in (1, 2, 5, 9, 10, 12.5, 40, 1000):
        assert t_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), abs=3e-3)
    values = [1.0, 2.0, 4.0, 4.5]
    found = student_mean(values)
    expected = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (found.low, found.high) == pytest.approx(expected, abs=1e-3)
    assert student_mean([3.0]).low is None and student_mean([]).value is None


def test_bootstrap_intervals_of_a_mean_cover_nearly_at_their_nominal_rate():
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(400):
        found = mean(rng.gamma(2.0, 2.0, size=80).tolist())
        covered += found.low <= 4.0 <= found.high
    assert 0.915 <= covered / 400 <= 0.98


def test_correlations_are_the_libraries_and_ranks_are_tested_over_all_orders():
    # 1 2 3 against 1 3 2: rho = 1 - 6 * 2 / (3 * 8) = 0.5; every order but none is as far: 1, .5, .5, -.5, -.5, -1.
    found = rank_correlation([1, 2, 3], [10, 30, 20])
    assert (found.value, found.p, found.n) == (pytest.approx(0.5), 1.0, 3)
    # Of the 24 orders of four, two have |rho| = 1; of the 5,040 of seven as well.
    assert rank_correlation([0, 1, 2, 3], [1, 2, 4, 9]).p == pytest.approx(2 / 24)
    assert rank_correlation(range(7), range(7, 0, -1)).p == pytest.approx(2 / 5040)
    rng = np.random.default_rng(0)
    for n in (5, 12, 40):
        x = list(range(n))
        y = [float(rng.integers(1, 4)) + 0.05 * i for i in x]
        found, theirs = rank_correlation(x, y), stats.spearmanr(x, y)
        assert found.value == pytest.approx(theirs.statistic)
        if n > 5:  # theirs is an approximation
            assert found.p == pytest.approx(theirs.pvalue, abs=0.02)
        assert correlation(x, y) == pytest.approx(np.corrcoef(x, y)[0, 1], rel=1e-9)
    assert rank_correlation([1, 2], [1, 2]).value is None
    assert rank_correlation([1, 2, 3], [5, 5, 5]).value is None
    assert correlation([1.0, 2.0], [3.0, 3.0]) == 0.0
