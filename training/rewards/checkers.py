"""Verifiable rewards: an answer is right or wrong by a rule (RLVR).

A checker gives 1.0 or 0.0, or None where the prompt does not say what the answer is: that is a missing
reward, never a wrong answer.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

Checker = Callable[[str, Mapping[str, Any]], float | None]

# A hyphen after a word or a number is no minus: 3-7 is a range.
_NUMBER = re.compile(
    r"(?:(?<![\w)\]])[-−]|\+)?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?"
)
_BEFORE = "\"'“‘«([{*_¿¡"
_AFTER = "\"'”’»)]}*_.,;:!?…"


def exact(*, answer: str, contains: bool) -> Checker:
    """Whether the response is `meta[answer]`, or holds it as whole words and numbers.

    Case, white space and punctuation around words do not count.
    """

    def check(response: str, meta: Mapping[str, Any]) -> float | None:
        expected = meta.get(answer)
        if not isinstance(expected, (str, int, float)) or isinstance(expected, bool):
            return None
        if contains:
            pattern = _pattern(str(expected))
            return None if pattern is None else float(pattern.search(_folded(response)) is not None)
        wanted = _plain(str(expected))
        return float(_plain(response) == wanted) if wanted else None

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


def _folded(text: str) -> str:
    return text.casefold().replace("−", "-")


@functools.lru_cache(maxsize=4096)
def _pattern(expected: str) -> re.Pattern[str] | None:
    """Finds an expected text in a folded one; None if nothing is left of it without punctuation."""
    words = [word.lstrip(_BEFORE).rstrip(_AFTER) for word in _folded(expected).split()]
    words = [word for word in words if word]
    if not words:
        return None
    between = f"[{re.escape(_AFTER)}]*\\s+[{re.escape(_BEFORE)}]*"
    start, end = words[0][0], words[-1][-1]
    # Not within a longer word; a number not within 3.5, 1,000 or -3; C not within C++.
    before, after = "", ""
    if start.isalnum() or start in "-+.":
        before = r"(?<!\w)"
    if start.isdigit():
        before += r"(?<!\d[.,])(?<!(?<!\w)[-.])"
    if end.isalnum():
        after = r"(?!\w)(?![+#]+(?!\w))"
    if end.isdigit():
        after += r"(?![.,]\d)"
    return re.compile(before + between.join(map(re.escape, words)) + after)
