"""The pairs worth a person's eyes: the judge's doubts more often than its certainties, the same ones for a seed."""

from __future__ import annotations

import hashlib
import heapq
import math
from collections.abc import Collection, Iterable

from judges.ledger.reading import LabelledPair
from judges.records import Label

FLOOR = 0.05
"""Weight of a pair that the judge is sure of: some of those are looked at too."""


def hardness(label: Label) -> float:
    """How much a look is worth, in [FLOOR, 1]: low margin, orders that disagree, votes that disagree.

    A failed label has nothing that a person could agree with and gets FLOOR.
    """
    p = label.p if label.p_raw is None else label.p_raw
    if p is None:
        return FLOOR
    margin = 1.0 - 2.0 * abs(p - 0.5)
    flip = 0.0
    if label.p_ab is not None and label.p_ba is not None and (label.p_ab - 0.5) * (label.p_ba - 0.5) < 0:
        flip = 1.0
    spread = min(1.0, 2.0 * (label.spread or 0.0))
    return FLOOR + (1.0 - FLOOR) * max(margin**2, flip, spread)


def sample(
    labelled: Iterable[LabelledPair], n: int, *, seed: int, without: Collection[str] = ()
) -> list[LabelledPair]:
    """`n` pairs drawn by hardness without replacement, in the order of their draw.

    Each pair's key is u^(1/w) with u from a hash of seed and pair id, and the largest keys win (Efraimidis and
    Spirakis 2006, algorithm A-Res): one pass, and the same sample wherever it is drawn. Pairs whose ids are in
    `without`, and pairs of two equal responses, are left out.
    """
    if n <= 0:
        return []
    heap: list[tuple[float, str, LabelledPair]] = []
    for one in labelled:
        if one.pair.id in without or one.pair.a == one.pair.b:
            continue
        # log(u) / w keeps the order of u^(1/w) where that would round to 0.
        key = math.log(_uniform(seed, one.pair.id)) / hardness(one.label)
        if len(heap) < n:
            heapq.heappush(heap, (key, one.pair.id, one))
        elif key > heap[0][0]:
            heapq.heapreplace(heap, (key, one.pair.id, one))
    return [one for _, _, one in sorted(heap, key=lambda x: (-x[0], x[1]))]


def _uniform(seed: int, name: str) -> float:
    """A number in (0, 1) that seed and name determine."""
    raw = hashlib.sha256(f"audit:{seed}:{name}".encode("utf-8", "replace")).digest()[:8]
    return (int.from_bytes(raw, "big") + 1) / (2**64 + 2)
