"""Pairs whose better answer the microworld's gold knows, and what gold prefers under any principles of its grammar."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from constitution import (
    Constitution,
    draw_comparison,
)
from judges import Pair
from judges.known import KnownPair

if TYPE_CHECKING:
    from microworld.oracle import GoldScores

# A comparison counts when gold prefers one answer with more than this probability.
CLEAR = 0.75


def generated_pairs(constitution: Constitution, *, n: int, seed: int, principles: int) -> list[KnownPair]:
    """Pairs on held-out topics whose better answer gold knows, under the principles that each pair draws.

    Fewer than `n`, down to none, where few of the constitution's questions are the microworld's.
    """
    from microworld.corpus import Corpus
    from microworld.oracle import score_request

    corpus = Corpus(f"known pairs:{seed}", split="heldout", wording_split="heldout")
    found: list[KnownPair] = []
    for number in range(50 * n):
        if len(found) == n:
            break
        request = corpus.request()
        a, b = corpus.pair(request)
        pair = Pair(id=f"exam-{number:05d}", prompt=({"role": "user", "content": request.text},), a=a, b=b)
        drawn = draw_comparison(constitution, pair.id, seed=seed, n=principles)
        scores = score_request(request, a), score_request(request, b)
        p = gold_preference([(principle.question, 1.0) for principle in drawn], *scores)
        if p is not None and abs(p - 0.5) > CLEAR - 0.5:
            found.append(KnownPair(pair=pair, winner="a" if p > 0.5 else "b"))
    return found


def gold_preference(principles: Sequence[tuple[str, float]], a: GoldScores, b: GoldScores) -> float | None:
    """P(a better) that gold implies for weighted questions; None when a question is not the microworld's."""
    from microworld.corpus import soft_label

    meanings = question_meanings()
    total = probability = 0.0
    for question, weight in principles:
        if question not in meanings:
            return None
        dimension, pole = meanings[question]
        probability += weight * soft_label(dimension, pole, a[dimension], b[dimension])
        total += weight
    return probability / total if total else None


@cache
def question_meanings() -> dict[str, tuple[str, int]]:
    """Every comparison question of the microworld's grammar: the dimension that it is about, and its pole."""
    from microworld.wordings import ADJECTIVES, wordings

    return {
        w.text: (w.dimension, w.pole)
        for dimension in ADJECTIVES
        for pole in (1, -1)
        for split in ("train", "heldout")
        for w in wordings("comparison", dimension, pole, split)
    }
