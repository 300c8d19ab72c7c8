"""Agreement between raters beyond chance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any


def cohen_kappa(counts: Mapping[tuple[Any, Any], int]) -> float:
    """Cohen's kappa of two raters from counts of (first, second); 1 is perfect, 0 chance (Cohen 1960).

    1.0 when both always say the same one thing: there is nothing that chance could explain. Raises ValueError
    without counts.
    """
    total = sum(counts.values())
    if total == 0:
        raise ValueError("kappa needs at least one pair of ratings")
    first: Counter[Hashable] = Counter()
    second: Counter[Hashable] = Counter()
    for (x, y), n in counts.items():
        first[x] += n
        second[y] += n
    observed = sum(n for (x, y), n in counts.items() if x == y) / total
    expected = sum(first[x] * second[x] for x in first) / total**2
    return 1.0 if expected == 1.0 else (observed - expected) / (1.0 - expected)


def krippendorff_alpha(units: Sequence[Sequence[Hashable]]) -> float:
    """Krippendorff's alpha for nominal data (Krippendorff 2004, chapter 11): any number of raters, gaps allowed.

    Each unit holds the ratings that it got; units with fewer than two are left out. 1 is perfect agreement, 0
    chance. 1.0 when everybody always says the same. Raises ValueError when no unit has two ratings.
    """
    return alpha_of_counts(Counter(tuple(unit) for unit in units))


def alpha_of_counts(counts: Mapping[tuple[Any, ...], int]) -> float:
    """The same alpha from how often each combination of ratings came."""
    weights: dict[tuple[Hashable, Hashable], float] = {}
    for ratings, times in counts.items():
        m = len(ratings)
        if m < 2:
            continue
        rated = Counter(ratings)
        for x, n in rated.items():
            for y, k in rated.items():
                weights[x, y] = weights.get((x, y), 0.0) + times * n * (k - (x == y)) / (m - 1)
    if not weights:
        raise ValueError("alpha needs a unit with two ratings")
    totals: dict[Hashable, float] = {}
    for (x, _), weight in weights.items():
        totals[x] = totals.get(x, 0.0) + weight
    size = sum(weights.values())
    observed = sum(weight for (x, y), weight in weights.items() if x != y)
    expected = sum(totals[x] * totals[y] for x in totals for y in totals if x != y) / (size - 1)
    return 1.0 if expected == 0 else 1.0 - observed / expected
