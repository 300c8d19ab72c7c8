"""Adding up the judgements of one pair: the mean over all orders and votes, and its status."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from engines.options import option_mass
from judges.records import FAILURES, HALF_ROUNDING, ORDERS, Order, Reading, Status


@dataclass(frozen=True, kw_only=True)
class Margins:
    """Where a mean stops being a preference. All are probabilities.

    mass: less total probability on the options than this is `no_answer`.
    tie: a mean closer to one half than this is a `tie`, and one half always is.
    flip: orders that name different winners and differ by more than this are `inconsistent`.
    """

    mass: float = 0.5
    tie: float = 0.05
    flip: float = 0.1


@dataclass(frozen=True, kw_only=True)
class Combined:
    """The sum of a pair's judgements; probabilities are for response `a`, None after a failure."""

    status: Status
    p: float | None = None
    p_ab: float | None = None
    p_ba: float | None = None
    spread: float | None = None
    detail: str | None = None


def combine(
    votes: Sequence[Sequence[Reading]],
    margins: Margins,
    *,
    shown: Sequence[Order] = ORDERS,
    pair: str = "ab",
) -> Combined:
    """One verdict on `pair` from votes, each the readings of all orders `shown` under one principle.

    Averaging over orders: Lee et al. 2023 (arXiv 2309.00267), section 2.1.1. Where more than two responses are
    shown, the probability of one against another is that of the pair alone, p_a / (p_a + p_b) (Luce's choice
    axiom). One failed judgement fails the pair: a mean over what happened to arrive would be a different question
    from the one asked.
    """
    if not votes:
        raise ValueError("combine needs at least one vote")
    failed = _failure(votes, margins)
    if failed is not None:
        return failed
    first: list[float] = []
    second: list[float] = []
    for vote in votes:
        by_place: dict[bool, list[float]] = {True: [], False: []}
        for order, reading in zip(shown, vote, strict=True):
            p = _against(dict(zip(order, _logprobs(reading), strict=True)), pair)
            if p is None:
                return Combined(status="no_answer", detail="neither response has any probability")
            by_place[order.index(pair[0]) < order.index(pair[1])].append(p)
        first.append(_mean(by_place[True]))
        second.append(_mean(by_place[False]))
    p_ab, p_ba = _mean(first), _mean(second)
    means = [(x + y) / 2 for x, y in zip(first, second, strict=True)]
    p = (p_ab + p_ba) / 2
    spread = math.sqrt(_mean([(m - p) ** 2 for m in means]))
    status: Status = "ok"
    if (p_ab - 0.5) * (p_ba - 0.5) < 0 and abs(p_ab - p_ba) > margins.flip:
        status = "inconsistent"
    elif abs(p - 0.5) < max(margins.tie, HALF_ROUNDING):
        status = "tie"
    return Combined(status=status, p=p, p_ab=p_ab, p_ba=p_ba, spread=spread)


def reading_status(reading: Reading, margins: Margins) -> Status:
    """The status of one judgement once the threshold on the options' mass is applied."""
    if reading.status == "ok" and option_mass(_logprobs(reading)) < margins.mass:
        return "no_answer"
    return reading.status


def _against(logprobs: dict[str, float], pair: str) -> float | None:
    """The probability of the first of `pair` against the second; None when both are impossible."""
    difference = logprobs[pair[1]] - logprobs[pair[0]]
    if math.isnan(difference):
        return None
    return 1.0 / (1.0 + math.exp(difference)) if difference < 700 else 0.0


def _failure(votes: Sequence[Sequence[Reading]], margins: Margins) -> Combined | None:
    worst: tuple[int, Reading] | None = None
    for vote in votes:
        for reading in vote:
            status = reading_status(reading, margins)
            if status == "ok":
                continue
            rank = FAILURES.index(status)
            if worst is None or rank < worst[0]:
                worst = (rank, reading)
    if worst is None:
        return None
    rank, reading = worst
    detail = reading.detail
    if reading.logprobs is not None:
        share = f"{option_mass(reading.logprobs):.2f} of the probability fell on the options"
        detail = f"{share}; {detail}" if detail else share
    return Combined(status=FAILURES[rank], detail=detail)


def _logprobs(reading: Reading) -> tuple[float, ...]:
    assert reading.logprobs is not None, "an ok reading carries log probabilities"
    return reading.logprobs


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
