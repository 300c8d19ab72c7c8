"""Head to head: two models' answers to the same prompts, and how often each is preferred."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from common.record import ABSENT, Record
from common.statistics import NORMAL, Estimate, away_from_half, benjamini_hochberg, bounded_mean

FALSE_DISCOVERIES = 0.05
"""Share of the principles said to part two models that may be expected to do so by chance."""
# The prior's standard deviation of the slope on the standardised regressor; it keeps the fit finite where length alone
# separates wins from losses (Gelman et al. 2008 give coefficients this scale).
_SLOPE_SD = 2.5
# One tie at equal length: keeps the intercept finite where one model wins everything.
_PRIOR_TIES = 1.0


@dataclass(frozen=True, kw_only=True)
class Match:
    """One comparison of an answer of model `a` with one of model `b` to the same prompt.

    `outcome` is 1 where a's answer was preferred, 0 where b's, one half for a tie, None where the judgement
    failed: that is no score. `words_a` and `words_b` are the answers' lengths.
    """

    prompt: str
    a: str
    b: str
    outcome: float | None
    words_a: int
    words_b: int

    def seen_from(self, model: str) -> Match:
        """The same match with `model` as its `a`."""
        if model == self.a:
            return self
        outcome = None if self.outcome is None else 1.0 - self.outcome
        return replace(self, a=self.b, b=self.a, outcome=outcome, words_a=self.words_b, words_b=self.words_a)


@dataclass(frozen=True, kw_only=True)
class LengthControlled(Estimate):
    """The win rate at equal length. `slope` is the change of the log odds per standard deviation of the difference in
    length; None where all lengths are equal, and then nothing is controlled for."""

    slope: float | None


@dataclass(frozen=True, kw_only=True)
class HeadToHead(Record):
    """What the matches of two models come to, seen from the first; `wins` to `undecided` count matches.

    `win_rate` counts ties as halves; `length_controlled` is the win rate at equal length. Both have a 95% interval over
    prompts: several answers to one prompt are averaged first, since they are not independent. `p` tests the win rate
    against one half; it is None where nothing was decided. Of a pair of models `a` and `b` are their names.
    """

    a: Annotated[str | None, ABSENT] = None
    b: Annotated[str | None, ABSENT] = None
    wins: int
    ties: int
    losses: int
    undecided: int
    win_rate: Estimate
    p: float | None
    length_controlled: LengthControlled


@dataclass(frozen=True, kw_only=True)
class Standings(Record):
    """Head to head pair by pair, and each model against all others together."""

    pairs: tuple[HeadToHead, ...]
    against_all: Mapping[str, HeadToHead]


def between(matches: Iterable[Match], a: str, b: str) -> list[Match]:
    """The matches of `a` and `b`, all seen from `a`."""
    return [m.seen_from(a) for m in matches if {m.a, m.b} == {a, b}]


def head_to_head(matches: Sequence[Match], **names: str) -> HeadToHead:
    """What matches of one pair of models, all seen from the same one, come to; `names` are its `a` and `b`."""
    decided = [m for m in matches if m.outcome is not None]
    prompts = by_prompt(decided)
    outcomes = [_average([_decided(m) for m in found]) for found in prompts.values()]
    lengths = [
        (_average([m.words_a for m in found]), _average([m.words_b for m in found]))
        for found in prompts.values()
    ]
    return HeadToHead(
        **names,
        wins=sum(m.outcome == 1.0 for m in decided),
        ties=sum(m.outcome == 0.5 for m in decided),
        losses=sum(m.outcome == 0.0 for m in decided),
        undecided=len(matches) - len(decided),
        win_rate=bounded_mean(outcomes),
        p=away_from_half(outcomes),
        length_controlled=length_controlled(outcomes, lengths),
    )


def standings(models: Sequence[str], matches: Sequence[Match]) -> Standings:
    """What the matches of several models come to."""
    return Standings(
        pairs=tuple(head_to_head(between(matches, a, b), a=a, b=b) for a, b in combinations(models, 2)),
        against_all={
            model: head_to_head([m.seen_from(model) for m in matches if model in (m.a, m.b)])
            for model in models
        },
    )


def by_principle(
    a: str, b: str, matches: Mapping[str, Sequence[Match]]
) -> dict[str, tuple[HeadToHead, float | None, str | None]]:
    """Principle to (`a` against `b` under it, p adjusted for the number of principles, the model that wins).

    `p_adjusted` is that of the win rate after Benjamini and Hochberg over all principles under which anything was
    decided, None where nothing was. A model wins where that is below 5%; elsewhere nobody does. The intervals of the
    win rates hold for each principle on its own, not for all of them together.
    """
    found = {name: head_to_head(own) for name, own in matches.items()}
    p_values = {name: one.p for name, one in found.items() if one.p is not None}
    adjusted = dict(zip(p_values, benjamini_hochberg(list(p_values.values())), strict=True))

    def wins(name: str) -> str | None:
        value = found[name].win_rate.value
        if value is None or adjusted[name] >= FALSE_DISCOVERIES:
            return None
        return a if value > 0.5 else b

    return {name: (one, adjusted.get(name), wins(name)) for name, one in found.items()}


def by_prompt(matches: Iterable[Match]) -> dict[str, list[Match]]:
    """Matches by the prompt that was answered."""
    found: dict[str, list[Match]] = defaultdict(list)
    for match in matches:
        found[match.prompt].append(match)
    return dict(found)


def _decided(match: Match) -> float:
    assert match.outcome is not None
    return match.outcome


def _average(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def length_controlled(outcomes: Sequence[float], lengths: Sequence[tuple[float, float]]) -> LengthControlled:
    """P(a wins) at equal length.

    Judges like long answers, and so do people. A logistic regression of the outcome on the difference in length is
    read off at equal length: Lee et al. 2023 (arXiv 2309.00267, appendix on response length) regress on the ratio of
    lengths and read off at 1; Dubois et al. 2024 (Length-Controlled AlpacaEval, arXiv 2404.04475) regress on the tanh
    of the scaled difference and read off at 0. Here the regressor is (a - b) / (a + b), which is the tanh of half the
    logarithm of the ratio: a ratio as in the first, bounded as in the second, and its sign turns when the models
    change places.

    `outcomes` are in [0, 1], one per prompt; `lengths` the words of a's and of b's answer. The interval comes from
    the sandwich covariance of the intercept (White 1982), which halves need: they vary less than coin tosses.
    `slope` is the change of the log odds per standard deviation of the regressor; None where all lengths are equal,
    and then nothing is controlled for.
    """
    n = len(outcomes)
    if n == 0:
        return LengthControlled(value=None, n=0, low=0.0, high=1.0, slope=None)
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
    value, low, high = (float(_sigmoid(beta[0] + z * error)) for z in (0.0, -NORMAL, NORMAL))
    slope = float(beta[1]) if len(columns) > 1 else None
    return LengthControlled(value=value, n=n, low=low, high=high, slope=slope)


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
