"""Whether a model says fewer different things than the reference in as many words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flows.evaluation.texts import ngrams, tokens

_HALVES = 200
_Z = 1.959963984540054


def diversity_change(
    mine: Mapping[str, Sequence[str]], normal: Mapping[str, Sequence[str]], *, seed: int = 0
) -> dict[str, Any]:
    """`{"value", "n", "low", "high"}`: the relative change of the number of different 2-grams, -0.1 for a tenth fewer.

    Both map a prompt to its answers; those that both have count, and the value is None below two. The share of
    different 2-grams falls with the number of words, so the longer side is cut to as many as the other: answers in the
    order of the drawn prompts until the count is reached. What is drawn are random halves of the prompts, since a
    bootstrap's repeated answers would look like sameness; the spread over halves is that of the whole sample (delete-d
    jackknife, d half of n: Shao and Tu 1995, The Jackknife and Bootstrap, chapter 2).
    """
    shared = [prompt for prompt in mine if prompt in normal]
    n = len(shared)
    nothing = {"value": None, "n": n, "low": None, "high": None}
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
    value, low, high = (math.expm1(centre + z * spread) for z in (0.0, -_Z, _Z))
    return {"value": value, "n": n, "low": low, "high": high}


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
