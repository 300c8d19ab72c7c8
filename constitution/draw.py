"""Which principle a pair or a revision step draws: weighted rendezvous hashing, without state.

Each enabled principle i gets u_i in (0, 1) from a hash of (kind, seed, item id, principle id) and the key
-ln(u_i) / w_i; the smallest keys win. Keys are independent exponentials with rates w_i, so a principle wins
with probability w_i / sum(w), and the n smallest are a weighted sample without replacement (Efraimidis and
Spirakis 2006; Schindelhauer and Schomaker 2005, "Weighted distributed hash tables"). A key depends on its own
principle alone, so an added, removed or re-weighted principle takes or gives up only the items that it must, and an
edited text moves nothing.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import TypeVar

from common.digest import canonical
from constitution.model import ComparisonPrinciple, Constitution, ConstitutionError, CritiquePrinciple

P = TypeVar("P", CritiquePrinciple, ComparisonPrinciple)


def draw_comparison(
    c: Constitution, pair_id: str, *, seed: int, n: int = 1
) -> tuple[ComparisonPrinciple, ...]:
    """The n distinct comparison principles of a pair, best key first.

    Raises ConstitutionError when fewer than n principles are enabled with a positive weight.
    """
    return _draw(c, c.comparison, "comparison", (seed, pair_id), n)


def draw_critique(c: Constitution, prompt_id: str, step: int, *, seed: int) -> CritiquePrinciple:
    """The critique-revision principle of revision step `step` (from 0) of a prompt; steps draw independently.

    Raises ConstitutionError when no critique principle is enabled with a positive weight.
    """
    return _draw(c, c.critique, "critique", (seed, prompt_id, step), 1)[0]


def drawable(principles: Sequence[P]) -> list[P]:
    """The principles that a draw can return: enabled, with a positive weight."""
    return [p for p in principles if p.enabled and p.weight > 0]


def _draw(
    c: Constitution, principles: Sequence[P], kind: str, item: tuple[object, ...], n: int
) -> tuple[P, ...]:
    candidates = drawable(principles)
    if not 1 <= n <= len(candidates):
        raise ConstitutionError(
            f"{c.ref}: cannot draw {n} {kind} principle(s): "
            f"{len(candidates)} are enabled with a weight above 0, and at least 1 must be drawn"
        )
    prefix = hashlib.sha256(canonical([kind, *item]).encode())
    keys = []
    for principle in candidates:
        hashed = prefix.copy()
        hashed.update(principle.id.encode())
        # 53 bits fill a double's mantissa; the half keeps u off 0 and 1.
        u = ((int.from_bytes(hashed.digest()[:8], "big") >> 11) + 0.5) / 2**53
        keys.append((-math.log(u) / principle.weight, principle.id, principle))
    keys.sort(key=lambda key: key[:2])
    return tuple(principle for _, _, principle in keys[:n])
