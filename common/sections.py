"""What a report says, as data: pages of sections with typed cells. `flows.report.render` shows them in three formats.

Every text may come from a model or a user and is raw: escaping is the renderers' work, once for each format.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from common.statistics import Estimate


@dataclass(frozen=True)
class Measure:
    """A number of a table, with its interval where it is an estimate: "93 (90-95)", "83.2% (79.0-86.7) of 200", "-".

    `percent` multiplies by 100; `digits` stand behind the point, by default none of a percentage and one otherwise.
    `unit` follows the number, `sign` writes a plus, `count` says of how many.
    """

    of: Estimate | float | None
    percent: bool = field(default=False, kw_only=True)
    digits: int | None = field(default=None, kw_only=True)
    unit: str = field(default="", kw_only=True)
    sign: bool = field(default=False, kw_only=True)
    count: bool = field(default=False, kw_only=True)

    def __str__(self) -> str:
        scale = 100 if self.percent else 1
        digits = (0 if self.percent else 1) if self.digits is None else self.digits

        def shown(number: float, sign: str = "") -> str:
            return f"{scale * number:{sign}z,.{digits}f}"

        found = self.of
        value = found.value if isinstance(found, Estimate) else found
        if value is None:
            return "-"
        text = shown(value, "+" if self.sign else "") + self.unit
        if isinstance(found, Estimate):
            if found.low is not None and found.high is not None:
                to = " to " if found.low < 0 else "-"
                text += f" ({shown(found.low)}{to}{shown(found.high)})"
            if self.count:
                text += f" of {found.n:,}"
        return text


Cell = str | int | Measure | None
"""A name or words, a count, a number, or nothing."""
Rows = Sequence[Sequence[Cell]]
"""A table; its first row are the headings."""


def percent(share: Estimate) -> Measure:
    """A share by itself: "83.2% (79.0-86.7) of 200"."""
    return Measure(share, percent=True, digits=1, unit="%", count=True)


def words(cell: Cell) -> str:
    """A cell as text."""
    return "-" if cell is None else f"{cell:,}" if isinstance(cell, int) else str(cell)


def texts(rows: Rows) -> list[list[str]]:
    """A table as text."""
    return [[words(cell) for cell in row] for row in rows]


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A picture: what it shows in words, and a function from ink colour to a matplotlib figure, or a finished `svg`.

    The `svg` is markup and is shown as it is: whoever makes it escapes.
    """

    text: str
    draw: Callable[[str], Any] | None = None
    svg: str = ""


@dataclass(frozen=True, kw_only=True)
class Fold:
    """What is folded away under a heading: (name, tag, text) by (name, tag, text), or one text as it is written."""

    heading: str
    tag: str = ""
    text: str = ""
    lines: Sequence[tuple[str, str, str]] = ()
    verbatim: str = ""
    open: bool = False


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading, what is to be said, then pictures, a table, and folds; each may be missing.

    `kind` is "words" where the cells hold sentences, "effects" where the last column does. `turned` tables have the
    rows as columns where lines are short.
    """

    heading: str = ""
    text: str = ""
    rows: Rows = ()
    figures: Sequence[Plot] = ()
    folds: Sequence[Fold] = ()
    level: int = 2
    kind: str = ""
    turned: bool = False

    @property
    def empty(self) -> bool:
        """Whether there is nothing under the heading."""
        return len(self.rows) < 2 and not self.figures and not self.folds


@dataclass(frozen=True, kw_only=True)
class Page:
    """A whole report: title, what it is about, the findings, then the sections."""

    title: str
    about: str = ""
    findings: Sequence[str] = ()
    sections: Sequence[Section] = ()
