"""The figures of an exam, each from plain numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Z95 = 1.959963984540054
BINS = 10


@dataclass(frozen=True, kw_only=True)
class Share:
    """A share with its 95% interval. `share` is None when there was nothing to count."""

    hits: int
    of: int
    share: float | None
    low: float
    high: float


def share(hits: int, of: int) -> Share:
    """Wilson's score interval (Wilson 1927), which behaves at 0 and 1 and for few trials."""
    if of == 0:
        return Share(hits=0, of=0, share=None, low=0.0, high=1.0)
    p, z2 = hits / of, Z95**2
    centre = (p + z2 / (2 * of)) / (1 + z2 / of)
    half = Z95 * math.sqrt(p * (1 - p) / of + z2 / (4 * of**2)) / (1 + z2 / of)
    # At p = 0 or 1 rounding would leave p itself outside.
    return Share(
        hits=hits, of=of, share=p, low=max(0.0, min(p, centre - half)), high=min(1.0, max(p, centre + half))
    )


@dataclass(frozen=True, kw_only=True)
class Bin:
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
