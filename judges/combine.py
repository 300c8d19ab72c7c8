"""Adding up the judgements of one pair: the mean over both orders and all votes, and its status."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from judges.readout import normalised, option_mass
from judges.records import FAILURES, Reading, Status


@dataclass(frozen=True, kw_only=True)
class Margins:
    """Where a mean stops being a preference. All are probabilities.

    mass: less total probability on the options than this is `no_answer`.
    tie: a mean closer to one half than this is a `tie`.
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


def combine(votes: Sequence[tuple[Reading, Reading]], margins: Margins) -> Combined:
    """One verdict from votes, each the readings of the orders (ab, ba) under one principle.

    Averaging both orders: Lee et al. 2023 (arXiv 2309.00267), section 2.1. One failed judgement fails
    the pair: a mean over what happened to arrive would be a different question from the one asked.
    """
    if not votes:
        raise ValueError("combine needs at least one vote")
    failed = _failure(votes, margins)
    if failed is not None:
        return failed
    ab = [normalised(_logprobs(first))[0] for first, _ in votes]
    ba = [normalised(_logprobs(second))[1] for _, second in votes]
    p_ab, p_ba = _mean(ab), _mean(ba)
    means = [(x + y) / 2 for x, y in zip(ab, ba, strict=True)]
    p = (p_ab + p_ba) / 2
    spread = math.sqrt(_mean([(m - p) ** 2 for m in means]))
    status: Status = "ok"
    if (p_ab - 0.5) * (p_ba - 0.5) < 0 and abs(p_ab - p_ba) > margins.flip:
        status = "inconsistent"
    elif abs(p - 0.5) < margins.tie:
        status = "tie"
    return Combined(status=status, p=p, p_ab=p_ab, p_ba=p_ba, spread=spread)


def reading_status(reading: Reading, margins: Margins) -> Status:
    """The status of one judgement once the threshold on the options' mass is applied."""
    if reading.status == "ok" and option_mass(_logprobs(reading)) < margins.mass:
        return "no_answer"
    return reading.status


def _failure(votes: Sequence[tuple[Reading, Reading]], margins: Margins) -> Combined | None:
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
    if detail is None and reading.logprobs is not None:
        detail = f"{option_mass(reading.logprobs):.2f} of the probability fell on the options"
    return Combined(status=FAILURES[rank], detail=detail)


def _logprobs(reading: Reading) -> tuple[float, ...]:
    assert reading.logprobs is not None, "an ok reading carries log probabilities"
    return reading.logprobs


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
