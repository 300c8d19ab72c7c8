"""Verifiable rewards: an answer is right or wrong by a rule (RLVR).

A checker gives 1.0 or 0.0, or None where the prompt does not say what the answer is: that is a missing
reward, never a wrong answer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

Checker = Callable[[str, Mapping[str, Any]], float | None]

_NUMBER = re.compile(r"[-+−]?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?")
_WORD = re.compile(r"\w+", re.UNICODE)


def exact(*, answer: str, contains: bool) -> Checker:
    """Whether the response is `meta[answer]`, or holds its words in a row."""

    def check(response: str, meta: Mapping[str, Any]) -> float | None:
        expected = meta.get(answer)
        if not isinstance(expected, (str, int, float)) or isinstance(expected, bool):
            return None
        if contains:
            words, wanted = _words(response), _words(str(expected))
            found = any(words[i : i + len(wanted)] == wanted for i in range(len(words) - len(wanted) + 1))
            return float(found)
        return float(_plain(response) == _plain(str(expected)))

    return check


def numeric(*, answer: str, tolerance: float) -> Checker:
    """Whether the last number in the response is `meta[answer]`."""

    def check(response: str, meta: Mapping[str, Any]) -> float | None:
        expected = last_number(str(meta.get(answer, "")))
        if expected is None:
            return None
        found = last_number(response)
        return float(found is not None and abs(found - expected) <= tolerance * max(1.0, abs(expected)))

    return check


def matches(pattern: str) -> Checker:
    """Whether the pattern is found in the response."""
    compiled = re.compile(pattern)
    return lambda response, meta: float(compiled.search(response) is not None)


def last_number(text: str) -> float | None:
    """The last number written in digits, thousands separators allowed; None if there is none."""
    found = _NUMBER.findall(text)
    if not found:
        return None
    value = float(found[-1].replace(",", "").replace("−", "-"))
    return value if math.isfinite(value) else None


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).removesuffix(".")


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())
