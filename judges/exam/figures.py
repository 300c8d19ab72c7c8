"""What a set of answers comes to beside the trivial baselines: overall, and under each principle alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from common.record import Record
from common.statistics import Share, share
from judges.asking.combine import Margins, combine
from judges.known import KnownPair
from judges.records import ORDERS, Label, Reading, Status, preferred

BINS = 10


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the judge said of one pair: its label, or its reading under one principle alone."""

    known: KnownPair
    status: Status
    winner: Literal["a", "b"] | None
    p_ab: float | None
    p_ba: float | None

    @property
    def correct(self) -> bool:
        """Whether the judge decided, and for the better response."""
        return self.status == "ok" and self.winner == self.known.winner


@dataclass(frozen=True, kw_only=True)
class Figures(Record):
    """Shares of pairs. `chose_longer` and `longer_is_right` are of decided pairs of unequal length."""

    pairs: int
    decided: Share
    accuracy: Share
    always_a: Share
    always_longer: Share
    flips: Share
    chose_longer: Share
    longer_is_right: Share

    @property
    def length_bias(self) -> float | None:
        """How much more often than right the longer response was chosen, in [-1, 1]; None with nothing to compare."""
        if self.chose_longer.value is None or self.longer_is_right.value is None:
            return None
        return self.chose_longer.value - self.longer_is_right.value


def figures(answers: Sequence[Answer]) -> Figures:
    """The figures of some answers."""
    decided = [x for x in answers if x.status == "ok"]
    unequal = [x for x in answers if len(x.known.pair.a) != len(x.known.pair.b)]
    differing = [x for x in unequal if x.status == "ok"]
    orders = [(x.p_ab, x.p_ba) for x in answers if x.p_ab is not None and x.p_ba is not None]
    return Figures(
        pairs=len(answers),
        decided=share(len(decided), len(answers)),
        accuracy=share(sum(x.correct for x in decided), len(decided)),
        always_a=share(sum(x.known.winner == "a" for x in answers), len(answers)),
        always_longer=share(sum(_longer(x.known) == x.known.winner for x in unequal), len(unequal)),
        flips=share(sum((ab - 0.5) * (ba - 0.5) < 0 for ab, ba in orders), len(orders)),
        chose_longer=share(sum(_longer(x.known) == x.winner for x in differing), len(differing)),
        longer_is_right=share(sum(_longer(x.known) == x.known.winner for x in differing), len(differing)),
    )


def whole(known: KnownPair, label: Label) -> Answer:
    """The label as an answer."""
    return Answer(known=known, status=label.status, winner=label.winner, p_ab=label.p_ab, p_ba=label.p_ba)


def by_principle(
    labels: Sequence[tuple[KnownPair, Label]], readings: Mapping[str, Reading], margins: Margins
) -> dict[str, Figures]:
    """Figures by principle id, each over the pairs that drew it, read under that principle alone.

    `readings` are by key of the judgement; one that is missing failed in the transport.
    """
    found: dict[str, list[Answer]] = {}
    for known, label in labels:
        each = len(label.judgements) // max(1, len(label.principles))
        for n, name in enumerate(label.principles):
            keys = label.judgements[n * each : (n + 1) * each]
            answers = [readings.get(key) or Reading(status="error") for key in keys]
            votes = [answers[i : i + len(ORDERS)] for i in range(0, len(answers), len(ORDERS))]
            total = combine(votes, margins)
            found.setdefault(name, []).append(
                Answer(
                    known=known,
                    status=total.status,
                    winner=preferred(total.p),
                    p_ab=total.p_ab,
                    p_ba=total.p_ba,
                )
            )
    return {name: figures(answers) for name, answers in sorted(found.items())}


def _longer(known: KnownPair) -> Literal["a", "b"]:
    return "a" if len(known.pair.a) > len(known.pair.b) else "b"


@dataclass(frozen=True, kw_only=True)
class Bin(Record):
    """One bin of a reliability plot: how sure the judge was on average, and how often it was right."""

    count: int
    confidence: float
    accuracy: float


def reliability(confidences: Sequence[float], right: Sequence[bool]) -> tuple[Bin, ...]:
    """Bins of equal width over confidences in [0.5, 1]; empty ones are left out."""
    members: dict[int, list[int]] = {}
    for n, confidence in enumerate(confidences):
        members.setdefault(min(BINS - 1, int((confidence - 0.5) * 2 * BINS)), []).append(n)
    return tuple(
        Bin(
            count=len(found),
            confidence=sum(confidences[n] for n in found) / len(found),
            accuracy=sum(right[n] for n in found) / len(found),
        )
        for _, found in sorted(members.items())
    )


def expected_calibration_error(bins: Sequence[Bin]) -> float | None:
    """ECE (Naeini et al. 2015; Guo et al. 2017): mean gap of confidence and accuracy, weighted by bin size."""
    total = sum(b.count for b in bins)
    return sum(b.count * abs(b.confidence - b.accuracy) for b in bins) / total if total else None
