"""The fit of gold against distance: known coefficients come back, and the peak is where the slope is zero."""

import random

import pytest

from flows.evaluation.over_optimisation import Fit, fit


def test_known_coefficients_come_back():
    true = Fit(alpha=0.7, beta=0.25, r_squared=1.0)
    distances = [0.0, 0.3, 0.8, 1.5, 2.5, 4.0, 6.0]
    found = fit(distances, [true(d) for d in distances])
    assert found is not None
    assert (found.alpha, found.beta, found.r_squared) == pytest.approx((0.7, 0.25, 1.0))
    step = 1e-5
    assert true.peak is not None
    assert true(true.peak) >= max(true(true.peak - step), true(true.peak + step))


def test_noise_moves_them_little():
    true, draw = Fit(alpha=0.7, beta=0.25, r_squared=1.0), random.Random(0)
    distances = [0.1 * n for n in range(1, 60)]
    found = fit(distances, [true(d) + draw.gauss(0, 0.05) for d in distances])
    assert found is not None and found.peak is not None and true.peak is not None
    assert found.peak == pytest.approx(true.peak, rel=0.1) and 0.8 < found.r_squared < 1


def test_what_never_falls_has_no_peak():
    found = fit([0.5, 1, 2, 3, 4], [0.5, 1, 2, 3, 4])
    assert found is not None
    assert Fit(alpha=1.0, beta=-0.1, r_squared=1.0).peak is None
    assert found(2.0) == pytest.approx(2.0)


@pytest.mark.parametrize("distances", [[], [0, 0, 0, 0, 0], [1, 2, 3], [1, 1, 1, 1]])
def test_too_little_to_fit(distances):
    assert fit(distances, [0.1] * len(distances)) is None
