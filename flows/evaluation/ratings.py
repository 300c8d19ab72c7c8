"""Ratings of many models from comparisons in pairs, ties included: Bradley and Terry 1952, with Davidson's ties (1970).

Model i has a strength s_i. Against j it wins with a probability in proportion to exp(s_i), loses in proportion to
exp(s_j), and ties in proportion to nu * exp((s_i + s_j) / 2) (Davidson 1970, JASA 65:317). On the scale of Elo a
difference of 400 points is odds of ten to one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from common.record import Record
from common.statistics import NORMAL, Estimate
from flows.evaluation.win_rates import Match, by_prompt

ELO_CENTRE = 1000.0
ELO_PER_LOGIT = 400.0 / math.log(10.0)

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Ratings(Record):
    """Ratings on the scale of Elo, their mean at 1000, by model; n counts matches.

    `tie_probability` is that of two equally strong models. The intervals are 1.96 standard errors either way.
    """

    method: str = "Bradley-Terry with Davidson's ties, scale of Elo, mean 1000; 95% intervals"
    tie_probability: float
    models: Mapping[str, Estimate]


def rate_models(models: Sequence[str], matches: Sequence[Match]) -> Ratings | None:
    """Ratings of all models; None when the decided matches do not connect them, since then no scale joins them.

    The prior adds wins to the pairs that met, alike and either way, half a win for each strength that is free: as much
    as Firth's correction of the bias adds in a logistic regression (1993, Biometrika 80:27), which keeps ratings
    finite where one model always wins. A half to every pair would draw many models together.
    """
    n, pairs = len(models), list(combinations(range(len(models)), 2))
    index = {frozenset((models[i], models[j])): row for row, (i, j) in enumerate(pairs)}
    counts = _counts(models, pairs, index, matches)
    total = counts.sum(axis=0)
    if not _connected(n, pairs, total):
        return None
    met = total.sum(axis=1) > 0
    prior = 0.5 * (n - 1) / met.sum() if n > 1 else 0.0
    features, data = _problem(n, pairs, total, prior)
    theta = _maximum(features, data)
    strengths, nu = _strengths(n, theta)
    errors = np.sqrt(_variances(n, features, data, theta, counts))
    played = [sum(total[row].sum() for row, pair in enumerate(pairs) if i in pair) for i in range(n)]
    by_model = {
        model: Estimate(
            value=_elo(strengths[i]),
            n=int(played[i]),
            low=_elo(strengths[i] - NORMAL * errors[i]),
            high=_elo(strengths[i] + NORMAL * errors[i]),
        )
        for i, model in enumerate(models)
    }
    return Ratings(models=by_model, tie_probability=nu / (2 + nu))


def fit_davidson(
    n: int, pairs: Sequence[tuple[int, int]], counts: Array, *, prior: float = 0.0
) -> tuple[Array, float]:
    """The maximum-likelihood strengths (n,), their mean 0, and nu, from `counts` (pairs, 3).

    The columns are wins of the pair's first model, wins of its second, ties. Without ties nu is 0 and the model that
    of Bradley and Terry. `prior` wins are added either way to each pair that met.
    """
    return _strengths(n, _maximum(*_problem(n, pairs, counts, prior)))


def _problem(n: int, pairs: Sequence[tuple[int, int]], counts: Array, prior: float) -> tuple[Array, Array]:
    """(features, counts with the prior's wins), both without the column of ties where there are none."""
    data = counts.astype(float).copy()
    data[data.sum(axis=1) > 0, :2] += prior
    features = _features(n, pairs)
    return (features, data) if data[:, 2].any() else (features[:, :2, :-1], data[:, :2])


def _maximum(features: Array, data: Array) -> Array:
    """Where the log likelihood is highest. It is concave; Newton's method, steps halved until it rises."""
    theta = np.zeros(features.shape[2])
    best = _log_likelihood(features, data, theta)
    for _ in range(100):
        gradient = np.einsum("po,pok->k", data, _centred(features, theta))
        step = np.linalg.solve(_information(features, data, theta), gradient)
        while (now := _log_likelihood(features, data, theta + step)) < best and np.abs(step).max() > 1e-12:
            step = step / 2
        theta, gain, best = theta + step, now - best, now
        if np.abs(step).max() < 1e-9 or abs(gain) < 1e-12:
            break
    return theta


def _strengths(n: int, theta: Array) -> tuple[Array, float]:
    strengths = np.concatenate([[0.0], theta[: n - 1]])
    return strengths - strengths.mean(), math.exp(theta[-1]) if len(theta) == n else 0.0


def _variances(n: int, features: Array, data: Array, theta: Array, by_prompt: Array) -> Array:
    """The variances (n,) of the strengths about their mean: the model's, or those seen over prompts where larger.

    The model takes all matches for independent. The sandwich over prompts (White 1982), the prior's wins among them,
    does not: two answers to one prompt, and one answer's matches with several others, go together.
    """
    centred = _centred(features, theta)
    bread = np.linalg.inv(_information(features, data, theta))
    outcomes = features.shape[1]
    scores = np.einsum("cpo,pok->ck", by_prompt[:, :, :outcomes], centred)
    added = data - by_prompt.sum(axis=0)[:, :outcomes]
    prompts = len(by_prompt)
    filling = scores.T @ scores * (prompts / max(1, prompts - 1))
    filling += np.einsum("po,pok,pol->kl", added, centred, centred)
    contrast = np.zeros((n, features.shape[2]))
    contrast[1:, : n - 1] = np.eye(n - 1)
    contrast[:, : n - 1] -= 1 / n
    spreads = [np.diag(contrast @ spread @ contrast.T) for spread in (bread, bread @ filling @ bread)]
    return np.maximum(*spreads)


def _centred(features: Array, theta: Array) -> Array:
    """The features (pairs, outcomes, parameters) less their mean under the model."""
    p = _softmax(features @ theta)
    return features - np.einsum("po,pok->pk", p, features)[:, None, :]


def _information(features: Array, data: Array, theta: Array) -> Array:
    centred = _centred(features, theta)
    weights = data.sum(axis=1)[:, None] * _softmax(features @ theta)
    return np.einsum("po,pok,pol->kl", weights, centred, centred) + 1e-10 * np.eye(features.shape[2])


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
