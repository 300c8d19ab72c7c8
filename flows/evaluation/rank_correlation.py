"""Whether one figure rises with another, by rank."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import permutations
from typing import Any

# Up to so many values every order is looked at (5,040); beyond, random ones.
_EXACT = 7
_ORDERS = 9_999


def rank_correlation(x: Sequence[float], y: Sequence[float], *, seed: int = 0) -> dict[str, Any]:
    """`{"value", "p", "n"}`: Spearman's rho (1904), ties with their mean rank, and its two-sided p-value.

    The p-value is the share of orders of `y` under which rho is at least as far from zero: of all orders up to 7
    values, else of 9,999 random ones and the one seen (Phipson and Smyth 2010). Both are None below 3 values or where
    all of one side are equal. Of n values no p-value is below 2 / n!.
    """
    n = len(x)
    a, b = (_centred(_ranks(values)) for values in (x, y))
    scale = math.sqrt(sum(v * v for v in a) * sum(v * v for v in b))
    if n < 3 or scale == 0.0:
        return {"value": None, "p": None, "n": n}
    rho = sum(v * w for v, w in zip(a, b, strict=True)) / scale
    # Rounding must not make an order look weaker than the same order seen.
    far = abs(rho) * scale * (1 - 1e-9)
    if n <= _EXACT:
        orders = [sum(v * w for v, w in zip(a, order, strict=True)) for order in permutations(b)]
        return {"value": rho, "p": sum(abs(found) >= far for found in orders) / len(orders), "n": n}
    import numpy as np

    drawn = np.random.default_rng(seed).permuted(np.tile(b, (_ORDERS, 1)), axis=1) @ np.asarray(a)
    return {"value": rho, "p": float(1 + (np.abs(drawn) >= far).sum()) / (_ORDERS + 1), "n": n}


def _ranks(values: Sequence[float]) -> list[float]:
    """Ranks from 1; equal values share the mean of theirs."""
    return [sum(o < v for o in values) + (1 + sum(o == v for o in values)) / 2 for v in values]


def _centred(values: Sequence[float]) -> list[float]:
    middle = sum(values) / len(values) if values else 0.0
    return [v - middle for v in values]
