"""Semantic versions, the ranges that a reference may name, and references themselves."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

_VERSION = re.compile(r"(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})", re.ASCII)
_RANGE = re.compile(r"\^(0|[1-9]\d{0,5})(?:\.(0|[1-9]\d{0,5}))?(?:\.(0|[1-9]\d{0,5}))?", re.ASCII)

BUMPS = ("major", "minor", "patch")


class Version(NamedTuple):
    """major.minor.patch; tuples compare as versions do."""

    major: int
    minor: int
    patch: int

    @classmethod
    def parse(cls, text: str) -> Version:
        """Raises ValueError unless `text` is three numbers, such as 1.2.0."""
        match = _VERSION.fullmatch(text)
        if not match:
            raise ValueError(f"version '{text}' must be three numbers, such as 1.2.0")
        return cls(*map(int, match.groups()))

    def bump(self, part: str) -> Version:
        """The next major, minor or patch version."""
        index = BUMPS.index(part)
        return Version(*[n + (i == index) if i <= index else 0 for i, n in enumerate(self)])

    def __str__(self) -> str:
        return ".".join(map(str, self))


class Range(NamedTuple):
    """At least `low`, below `high`."""

    low: Version
    high: Version

    @classmethod
    def parse(cls, text: str) -> Range:
        """`1.2.0` is itself; `^1.2` is 1.2.0 up to 2.0.0; `^0.2` is 0.2.0 up to 0.3.0 (as in npm and Cargo).

        Raises ValueError on anything else.
        """
        if not text.startswith("^"):
            exact = Version.parse(text)
            return cls(exact, exact.bump("patch"))
        match = _RANGE.fullmatch(text)
        if not match:
            raise ValueError(f"range '{text}' must look like ^1, ^1.2 or ^1.2.3")
        given = [int(part) for part in match.groups() if part is not None]
        low = Version(*[*given, 0, 0][:3])
        # The leftmost non-zero part must stay; with zeros alone, the last one given.
        fixed = next((i for i, n in enumerate(given) if n), len(given) - 1)
        return cls(low, low.bump(BUMPS[fixed]))

    def best(self, versions: Iterable[Version]) -> Version | None:
        """The newest version inside the range, or None."""
        return max((v for v in versions if self.low <= v < self.high), default=None)
