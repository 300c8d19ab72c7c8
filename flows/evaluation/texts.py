"""Measures of texts: length, repetition inside an answer, sameness across answers; and texts that loop or copy.

Loops and copies are told by word n-grams. A text is

- `looping` when it has at least `LOOP_WORDS` words and at least `LOOP_SHARE` of its 4-grams stood in it before
  (seq-rep-4; of people's texts it is a few hundredths);
- `copied` when at least `COPY_SHARE` of its 8-grams stand in the question but in none of the texts that it may repeat.
  A text of fewer than eight words has none and is never caught.
"""

from __future__ import annotations

import math
import re
import zlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.record import Record
from common.statistics import NORMAL, Estimate, bounded_mean
from flows.errors import FlowError

_CJK = "぀-ヿ㐀-䶿一-鿿豈-﫿"
_TOKEN = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+(?:['’][^\W{_CJK}]+)?")
_BLEU_ORDER = 4
_HALVES = 200

LOOP_WORDS = 24
LOOP_SHARE = 0.5
COPY_WORDS = 8
COPY_SHARE = 0.25


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


def looping(text: str) -> bool:
    """Whether a text says the same words over and over."""
    words = tokens(text)
    return len(words) >= LOOP_WORDS and repeated_share(words) >= LOOP_SHARE


def copied(text: str, asked: Iterable[str], allowed: Iterable[str] = ()) -> bool:
    """Whether a text repeats what it was `asked` (a template, its exemplars, a critique) instead of doing it.

    `allowed` are texts inside the question that an answer may well repeat, such as the answer that is revised.
    """
    grams = ngrams(tokens(text), COPY_WORDS)
    if not grams:
        return False
    known = {gram for other in asked for gram in ngrams(tokens(other), COPY_WORDS)}
    known -= {gram for other in allowed for gram in ngrams(tokens(other), COPY_WORDS)}
    return sum(gram in known for gram in grams) >= COPY_SHARE * len(grams)


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


def diversity_change(
    mine: Mapping[str, Sequence[str]], normal: Mapping[str, Sequence[str]], *, seed: int = 0
) -> Estimate:
    """Whether a model says fewer different things in as many words: the relative change of the number of different
    2-grams, -0.1 for a tenth fewer.

    Both map a prompt to its answers; those that both have count, and the value is None below two. The share of
    different 2-grams falls with the number of words, so the longer side is cut to as many as the other: answers in the
    order of the drawn prompts until the count is reached. What is drawn are random halves of the prompts, since a
    bootstrap's repeated answers would look like sameness; the spread over halves is that of the whole sample (delete-d
    jackknife, d half of n: Shao and Tu 1995, The Jackknife and Bootstrap, chapter 2).
    """
    shared = [prompt for prompt in mine if prompt in normal]
    n = len(shared)
    nothing = Estimate(value=None, n=n, low=None, high=None)
    if n < 2:
        return nothing
    sides = [_numbered([found[prompt] for prompt in shared]) for found in (mine, normal)]
    rng = np.random.default_rng(seed)
    logs = []
    for _ in range(_HALVES):
        half = rng.permutation(n)[: (n + 1) // 2]
        drawn = [np.concatenate([side[i] for i in half]) for side in sides]
        size = min(map(len, drawn))
        if size == 0:
            return nothing
        counts = [len(np.unique(grams[:size])) for grams in drawn]
        logs.append(math.log(counts[0] / counts[1]))
    centre, spread = float(np.mean(logs)), float(np.std(logs))
    value, low, high = (math.expm1(centre + z * spread) for z in (0.0, -NORMAL, NORMAL))
    return Estimate(value=value, n=n, low=low, high=high)


def _numbered(answers: Sequence[Sequence[str]]) -> list[NDArray[np.int64]]:
    """Of each prompt the 2-grams of its answers, each different one a number."""
    numbers: dict[tuple[object, ...], int] = {}
    return [
        np.array(
            [numbers.setdefault(gram, len(numbers)) for text in texts for gram in ngrams(tokens(text), 2)],
            dtype=np.int64,
        )
        for texts in answers
    ]


_ROUGES = ("rouge1", "rouge2", "rougeL")


@dataclass(frozen=True, kw_only=True)
class Bleu(Record):
    """sacrebleu's BLEU of a corpus of `n` texts, 0-100, with its signature (Post 2018)."""

    value: float
    n: int
    signature: str


@dataclass(frozen=True, kw_only=True)
class ReferenceMetrics(Record):
    """BLEU of the corpus, and ROUGE F scores (Lin 2004, stemmed, the best of the references) in [0, 1]."""

    bleu: Bleu
    rouge1: Estimate
    rouge2: Estimate
    rougeL: Estimate


def reference_metrics(texts: Sequence[str], references: Sequence[Sequence[str]]) -> ReferenceMetrics | None:
    """Of texts, each with its references; texts without any are left out. None without references.

    Raises FlowError when the extra `charter[metrics]` is not installed.
    """
    known = [(text, list(refs)) for text, refs in zip(texts, references, strict=True) if refs]
    if not known:
        return None
    try:
        from rouge_score.rouge_scorer import RougeScorer
        from sacrebleu.metrics import BLEU
    except ImportError as error:
        raise FlowError(
            f"the prompts have references, but {error.name} is not installed: pip install 'charter[metrics]'"
        ) from error
    # sacrebleu wants the first references of all texts, then the second ones; "" stands for none.
    most = max(len(refs) for _, refs in known)
    columns = [[refs[i] if i < len(refs) else "" for _, refs in known] for i in range(most)]
    bleu = BLEU()
    score = bleu.corpus_score([text for text, _ in known], columns)
    scorer = RougeScorer(list(_ROUGES), use_stemmer=True)
    scored = [scorer.score_multi(refs, text) for text, refs in known]
    return ReferenceMetrics(
        bleu=Bleu(value=float(score.score), n=len(known), signature=str(bleu.get_signature())),
        **{name: bounded_mean([float(s[name].fmeasure) for s in scored]) for name in _ROUGES},
    )
