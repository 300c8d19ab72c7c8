"""Phrases that one model writes more often than another: found in the answers, not looked up in a list."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from common.record import Record
from flows.evaluation.texts import ngrams, tokens

LONGEST = 6
# The prior weighs as much as this many answers.
_PRIOR_ANSWERS = 10.0
# A phrase in fewer answers says nothing of the model.
_MIN_SHARE = 0.05
_FALSE_ALARMS = 0.05
_SHOWN = 8
_OVERLAP = 3


@dataclass(frozen=True, kw_only=True)
class Phrase(Record):
    """A phrase, the share of answers that hold it here and in the reference, and the z score of the difference."""

    text: str
    share: float
    normal: float
    z: float


def overused(answers: Sequence[str], reference: Sequence[str], *, excess: float) -> list[Phrase]:
    """The phrases of 1 to 6 words that `answers` hold more often than `reference`, by the words that they add.

    Monroe, Colaresi and Quinn 2008 ("Fightin' Words", Political Analysis 16:372, sections 3.4 and 3.5.1): the
    difference of log odds under a Dirichlet prior in proportion to both sides together, over its standard deviation.
    Answers are counted, not words: a phrase that one answer repeats counts once, so the counts are of independent
    things. Kept is what holds for `excess` more of the answers and whose z could arise by chance among all phrases
    tried with a probability below 0.05 (Bonferroni); of a phrase inside a longer one about as frequent, only the
    longer is, and of phrases that share three words in a row only the first.
    """
    if not answers or not reference:
        return []
    mine, normal = _counts(answers), _counts(reference)
    n, m = len(answers), len(reference)
    tried = [gram for gram, count in mine.items() if count >= max(2, _MIN_SHARE * n)]
    if not tried:
        return []
    bar = NormalDist().inv_cdf(1 - _FALSE_ALARMS / len(tried))
    found: dict[tuple[str, ...], Phrase] = {}
    for gram in tried:
        share, usual = mine[gram] / n, normal[gram] / m
        z = _z_score(mine[gram], n, normal[gram], m)
        if share - usual >= excess and z > bar:
            found[gram] = Phrase(text=" ".join(gram), share=share, normal=usual, z=z)
    alone = [gram for gram, phrase in found.items() if not _inside_another(gram, phrase, found)]
    alone.sort(key=lambda gram: (-(found[gram].share - found[gram].normal) * len(gram), gram))
    kept: list[tuple[str, ...]] = []
    for gram in alone:
        # Windows of six words slide over a longer sentence: one of them is enough.
        if not any(set(ngrams(gram, _OVERLAP)) & set(ngrams(other, _OVERLAP)) for other in kept):
            kept.append(gram)
    return [found[gram] for gram in kept[:_SHOWN]]


def _counts(answers: Sequence[str]) -> Counter[tuple[str, ...]]:
    """How many answers hold each phrase."""
    counts: Counter = Counter()
    for text in answers:
        words = tokens(text)
        counts.update({gram for size in range(1, LONGEST + 1) for gram in ngrams(words, size)})
    return counts


def _z_score(y: int, n: int, y_ref: int, n_ref: int) -> float:
    """Monroe et al. 2008, sections 3.3.4 and 3.4, with answers that hold the phrase or do not as the two outcomes."""
    prior = _PRIOR_ANSWERS * (y + y_ref) / (n + n_ref)
    sides = []
    for count, total in ((y, n), (y_ref, n_ref)):
        # A phrase in every answer of both sides has no odds; half an answer keeps them finite.
        rest = max(0.5, total + _PRIOR_ANSWERS - count - prior)
        sides.append((math.log((count + prior) / rest), 1 / (count + prior) + 1 / rest))
    (odds, variance), (odds_ref, variance_ref) = sides
    return (odds - odds_ref) / math.sqrt(variance + variance_ref)


def _inside_another(gram: tuple[str, ...], phrase: Phrase, found: dict[tuple[str, ...], Phrase]) -> bool:
    return any(
        len(other) > len(gram) and gram in ngrams(other, len(gram)) and longer.share >= 0.8 * phrase.share
        for other, longer in found.items()
    )
