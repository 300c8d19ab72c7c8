"""Ratings of many models from comparisons in pairs, ties included: Bradley and Terry 1952, with Davidson's ties (1970).

Model i has a strength s_i. Against j it wins with a probability in proportion to exp(s_i), loses in proportion to
exp(s_j), and ties in proportion to nu * exp((s_i + s_j) / 2) (Davidson 1970, JASA 65:317). On the scale of Elo a
difference of 400 points is odds of ten to one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flows.evaluation.win_rates import Match, by_prompt

ELO_CENTRE = 1000.0
ELO_PER_LOGIT = 400.0 / math.log(10.0)
# Half a win either way for each pair that met: finite ratings where one model always wins (Agresti 2013 adds the same
# to the cells of a table).
PRIOR = 0.5
_RESAMPLES = 500

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Ratings:
    """Ratings on the scale of Elo, their mean at 1000, each `{"value", "n", "low", "high"}`; n counts matches.

    `tie_probability` is that of two equally strong models. The intervals are percentiles of a bootstrap over prompts.
    """

    by_model: dict[str, dict[str, Any]]
    tie_probability: float


def rate_models(models: Sequence[str], matches: Sequence[Match], *, seed: int = 0) -> Ratings | None:
    """Ratings of all models; None when the decided matches do not connect them, since then no scale joins them."""
    pairs = list(combinations(range(len(models)), 2))
    index = {frozenset((models[i], models[j])): n for n, (i, j) in enumerate(pairs)}
    counts = _counts(models, pairs, index, matches)
    total = counts.sum(axis=0)
    if not _connected(len(models), pairs, total):
        return None
    strengths, nu = fit_davidson(len(models), pairs, total, prior=PRIOR)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=_RESAMPLES)
    start = np.append(strengths, nu)
    again = [
        fit_davidson(len(models), pairs, np.tensordot(weights, counts, axes=1), prior=PRIOR, start=start)[0]
        for weights in drawn.astype(float)
    ]
    lows, highs = np.quantile(np.array(again), [0.025, 0.975], axis=0)
    met = [sum(total[n].sum() for n, pair in enumerate(pairs) if i in pair) for i in range(len(models))]
    by_model = {
        model: {"value": _elo(strengths[i]), "n": int(met[i]), "low": _elo(lows[i]), "high": _elo(highs[i])}
        for i, model in enumerate(models)
    }
    return Ratings(by_model=by_model, tie_probability=nu / (2 + nu))


def fit_davidson(
    n: int,
    pairs: Sequence[tuple[int, int]],
    counts: Array,
    *,
    prior: float = 0.0,
    start: Array | None = None,
) -> tuple[Array, float]:
    """The maximum-likelihood strengths (n,), their mean 0, and nu, from `counts` (pairs, 3).

    The columns are wins of the pair's first model, wins of its second, ties. Without ties nu is 0 and the model that
    of Bradley and Terry. `prior` wins are added either way to each pair that met. The log likelihood is concave;
    Newton's method, steps halved until it rises.
    """
    data = counts.astype(float).copy()
    data[data.sum(axis=1) > 0, :2] += prior
    features, tied = _features(n, pairs), bool(data[:, 2].sum() > 0)
    if not tied:
        features, data = features[:, :2, :-1], data[:, :2]
    theta = np.zeros(features.shape[2])
    if start is not None:
        theta[: n - 1] = start[1:n] - start[0]
        if tied and start[n] > 0:
            theta[-1] = math.log(start[n])
    totals = data.sum(axis=1)
    best = _log_likelihood(features, data, theta)
    for _ in range(100):
        p = _softmax(features @ theta)
        mean = np.einsum("po,pok->pk", p, features)
        gradient = np.einsum("po,pok->k", data, features) - totals @ mean
        spread = np.einsum("p,po,pok,pol->kl", totals, p, features, features)
        information = spread - np.einsum("p,pk,pl->kl", totals, mean, mean)
        step = np.linalg.solve(information + 1e-10 * np.eye(len(theta)), gradient)
        while (now := _log_likelihood(features, data, theta + step)) < best and np.abs(step).max() > 1e-12:
            step = step / 2
        theta, gain, best = theta + step, now - best, now
        if np.abs(step).max() < 1e-9 or abs(gain) < 1e-12:
            break
    strengths = np.concatenate([[0.0], theta[: n - 1]])
    return strengths - strengths.mean(), math.exp(theta[-1]) if tied else 0.0


def _features(n: int, pairs: Sequence[tuple[int, int]]) -> Array:
    """(pairs, 3 outcomes, n parameters): strengths of models 1..n-1 (model 0 is the origin), then log nu."""
    full = np.zeros((len(pairs), 3, n + 1))
    for row, (i, j) in enumerate(pairs):
        full[row, 0, i] = full[row, 1, j] = 1.0
        full[row, 2, [i, j]] = 0.5
        full[row, 2, n] = 1.0
    return full[:, :, 1:]


def _softmax(utilities: Array) -> Array:
    shifted = np.exp(utilities - utilities.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def _log_likelihood(features: Array, data: Array, theta: Array) -> float:
    utilities = features @ theta
    top = utilities.max(axis=1, keepdims=True)
    return float(
        (data * (utilities - top - np.log(np.exp(utilities - top).sum(axis=1, keepdims=True)))).sum()
    )


def _counts(
    models: Sequence[str],
    pairs: Sequence[tuple[int, int]],
    index: dict[frozenset[str], int],
    matches: Sequence[Match],
) -> Array:
    """(prompts, pairs, 3): decided matches of each prompt."""
    prompts = by_prompt(m for m in matches if m.outcome is not None)
    counts = np.zeros((len(prompts), len(pairs), 3))
    for row, found in enumerate(prompts.values()):
        for match in found:
            n = index[frozenset((match.a, match.b))]
            outcome = match.seen_from(models[pairs[n][0]]).outcome
            counts[row, n, 0 if outcome == 1.0 else 1 if outcome == 0.0 else 2] += 1
    return counts


def _connected(n: int, pairs: Sequence[tuple[int, int]], total: Array) -> bool:
    reached, grew = {0}, True
    while grew:
        edges = [set(pair) for row, pair in enumerate(pairs) if total[row].sum() > 0 and reached & set(pair)]
        grown = reached.union(*edges)
        grew, reached = grown != reached, grown
    return len(reached) == n


def _elo(strength: float) -> float:
    return ELO_CENTRE + ELO_PER_LOGIT * float(strength)
