"""The win rate that is left when both answers are equally long.

Judges like long answers, and so do people. A logistic regression of the outcome on the difference in length is
read off at equal length: Lee et al. 2023 (arXiv 2309.00267, appendix on response length) regress on the ratio of
lengths and read off at 1; Dubois et al. 2024 (Length-Controlled AlpacaEval, arXiv 2404.04475) regress on the tanh
of the scaled difference and read off at 0. Here the regressor is (a - b) / (a + b), which is the tanh of half the
logarithm of the ratio: a ratio as in the first, bounded as in the second, and its sign turns when the models change
places.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Z = 1.959963984540054
# The prior's standard deviation of the slope on the standardised regressor; it keeps the fit finite where length alone
# separates wins from losses (Gelman et al. 2008 give coefficients this scale).
_SLOPE_SD = 2.5
# One tie at equal length: keeps the intercept finite where one model wins everything.
_PRIOR_TIES = 1.0


def length_controlled(outcomes: Sequence[float], lengths: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """`{"value", "n", "low", "high", "slope"}`: P(a wins) at equal length, with a 95% interval.

    `outcomes` are in [0, 1], one per prompt; `lengths` the words of a's and of b's answer. The interval comes from
    the sandwich covariance of the intercept (White 1982), which halves need: they vary less than coin tosses.
    `slope` is the change of the log odds per standard deviation of the regressor; None where all lengths are equal,
    and then nothing is controlled for.
    """
    n = len(outcomes)
    if n == 0:
        return {"value": None, "n": 0, "low": 0.0, "high": 1.0, "slope": None}
    longer = np.array([(a - b) / (a + b) if a + b else 0.0 for a, b in lengths])
    scale = math.sqrt(float(np.mean(longer**2)))
    columns = [np.ones(n)] if scale < 1e-9 else [np.ones(n), longer / scale]
    design = np.stack(columns, axis=1)
    y = np.asarray(outcomes, dtype=float)
    # The tie of the prior is a row of weight one at equal length.
    design = np.vstack([design, np.eye(len(columns))[:1]])
    y, weights = np.append(y, 0.5), np.append(np.ones(n), _PRIOR_TIES)
    penalty = np.array([0.0, 1.0 / _SLOPE_SD**2][: len(columns)])
    beta, covariance = logistic(design, y, weights=weights, penalty=penalty)
    error = math.sqrt(float(covariance[0, 0]))
    value, low, high = (float(_sigmoid(beta[0] + z * error)) for z in (0.0, -_Z, _Z))
    slope = float(beta[1]) if len(columns) > 1 else None
    return {"value": value, "n": n, "low": low, "high": high, "slope": slope}


def logistic(
    design: NDArray[Any],
    outcomes: NDArray[Any],
    *,
    weights: NDArray[Any] | None = None,
    penalty: NDArray[Any] | None = None,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Logistic regression of outcomes in [0, 1]: (coefficients, their sandwich covariance HC0).

    `design` is (n, p); `penalty` (p,) adds penalty * beta**2 / 2 to the negative log likelihood. Newton's method.
    The estimate is finite only when the data are not separated, or the penalty holds it.
    """
    w = np.ones(len(outcomes)) if weights is None else weights
    ridge = np.zeros(design.shape[1]) if penalty is None else penalty
    beta = np.zeros(design.shape[1])
    for _ in range(100):
        p = _sigmoid(design @ beta)
        gradient = design.T @ (w * (outcomes - p)) - ridge * beta
        step = np.linalg.solve(_information(design, w * p * (1 - p), ridge), gradient)
        # A long step may overshoot where probabilities are near 0 or 1.
        beta = beta + step * min(1.0, 5.0 / max(1e-12, float(np.abs(step).max())))
        if np.abs(step).max() < 1e-10:
            break
    p = _sigmoid(design @ beta)
    bread = np.linalg.inv(_information(design, w * p * (1 - p), ridge))
    scores = design * (w * (outcomes - p))[:, None]
    return beta, bread @ (scores.T @ scores) @ bread


def _information(design: NDArray[Any], curvature: NDArray[Any], ridge: NDArray[Any]) -> NDArray[Any]:
    # The 1e-12 keeps a column of a fit that has gone to certainty invertible.
    return design.T @ (design * curvature[:, None]) + np.diag(ridge + 1e-12)


def _sigmoid(x: Any) -> Any:
    return 1.0 / (1.0 + np.exp(-np.clip(x, -700, 700)))
