"""Measures of texts: length, repetition inside an answer, sameness across answers."""

from __future__ import annotations

import math
import re
import zlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Hashable, Sequence

_CJK = "぀-ヿ㐀-䶿一-鿿豈-﫿"
_TOKEN = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+(?:['’][^\W{_CJK}]+)?")
_BLEU_ORDER = 4


def tokens(text: str) -> list[str]:
    """Words in lower case without punctuation; where a script has no spaces (Chinese, Japanese), its characters."""
    return _TOKEN.findall(text.lower())


def ngrams(words: Sequence[Hashable], n: int) -> list[tuple[Hashable, ...]]:
    """All runs of `n` words, in order."""
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def repeated_share(words: Sequence[str], n: int = 4) -> float:
    """seq-rep-n: the share of n-grams that the text already had, in [0, 1] (Welleck et al. 2020, arXiv 1908.04319)."""
    grams = ngrams(words, n)
    return 1.0 - len(set(grams)) / len(grams) if grams else 0.0


def longest_repeat(words: Sequence[str]) -> int:
    """The longest run of words that occurs twice without overlapping itself, in words."""
    low, high = 0, len(words) // 2
    while low < high:
        middle = (low + high + 1) // 2
        if _repeats(words, middle):
            low = middle
        else:
            high = middle - 1
    return low


def _repeats(words: Sequence[str], n: int) -> bool:
    first: dict[tuple[Hashable, ...], int] = {}
    return any(first.setdefault(gram, at) <= at - n for at, gram in enumerate(ngrams(words, n)))


def distinct(answers: Sequence[Sequence[str]], n: int = 2) -> float | None:
    """distinct-n: different n-grams over all n-grams of the answers together (Li et al. 2016, arXiv 1510.03055).

    It falls with the number of words, so compare answers of about equal number and length. None without n-grams.
    """
    grams = [gram for words in answers for gram in ngrams(words, n)]
    return len(set(grams)) / len(grams) if grams else None


def compression_ratio(texts: Sequence[str]) -> float | None:
    """Bytes of the texts together over their bytes deflated: high where they say the same again and again.

    Shaib et al. 2024 (arXiv 2403.00553) find that it is quick and tells much of what slow n-gram overlap does. None
    for empty texts.
    """
    data = "\n".join(texts).encode()
    return len(data) / len(zlib.compress(data, 9)) if data.strip() else None


def self_bleu(answers: Sequence[Sequence[str]]) -> list[float]:
    """BLEU-4 of each answer against all others as references, in [0, 1] (Zhu et al. 2018, arXiv 1802.01886).

    Smoothed by adding one to the counts of the orders above one (Lin and Och 2004), since answers are short. Time
    grows with the words, not with the pairs of answers: per n-gram its two largest counts tell every answer the
    largest of the others.
    """
    if len(answers) < 2:
        return [0.0 for _ in answers]
    counts = [[Counter(ngrams(words, n)) for words in answers] for n in range(1, _BLEU_ORDER + 1)]
    tops = [_two_largest(of_order) for of_order in counts]
    lengths = sorted(len(words) for words in answers)
    scores = []
    for index, words in enumerate(answers):
        logs = 0.0
        for n in range(_BLEU_ORDER):
            mine, smooth = counts[n][index], 1 if n else 0
            matched = sum(min(c, _of_others(tops[n][gram], index)) for gram, c in mine.items())
            total = sum(mine.values())
            if matched + smooth == 0 or total + smooth == 0:
                logs = -math.inf
                break
            logs += math.log((matched + smooth) / (total + smooth))
        brevity = min(0.0, 1.0 - _closest(lengths, len(words)) / len(words)) if words else 0.0
        scores.append(math.exp(logs / _BLEU_ORDER + brevity))
    return scores


def _two_largest(
    counts: Sequence[Counter[tuple[Hashable, ...]]],
) -> dict[tuple[Hashable, ...], tuple[int, int, int]]:
    """N-gram to (largest count, whose, second largest)."""
    found: dict[tuple[Hashable, ...], tuple[int, int, int]] = {}
    for index, mine in enumerate(counts):
        for gram, count in mine.items():
            best, owner, second = found.get(gram, (0, -1, 0))
            if count > best:
                found[gram] = (count, index, best)
            elif count > second:
                found[gram] = (best, owner, count)
    return found


def _of_others(top: tuple[int, int, int], index: int) -> int:
    best, owner, second = top
    return second if owner == index else best


def _closest(lengths: Sequence[int], own: int) -> int:
    """The length among the other answers that is closest to `own`, the shorter of two equally close ones.

    `lengths` are sorted and hold `own` at least once.
    """
    at = bisect_left(lengths, own)
    others = [*lengths[max(0, at - 1) : at], *lengths[at + 1 : at + 2]]
    return min(others, key=lambda length: (abs(length - own), length))
