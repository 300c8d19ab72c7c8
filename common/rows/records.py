"""What the reader gives: prompts, examples and preferences, and what of a file it left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, overload

Message = Mapping[str, str]
"""`{"role": "system"|"user"|"assistant", "content": str}`."""
R = TypeVar("R")
_PLACES = 3


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A conversation that awaits the assistant's answer. `meta` is free and travels along."""

    id: str
    prompt: list[dict[str, str]]
    meta: dict[str, Any] = field(default_factory=dict)
    place: str = ""

    def row(self) -> dict[str, Any]:
        """The prompt as a line of a prompts file."""
        return {"id": self.id, "prompt": self.prompt, "meta": self.meta}


@dataclass(frozen=True, kw_only=True)
class Example:
    """A conversation to imitate; its last message is the assistant's."""

    id: str
    messages: list[dict[str, str]]
    place: str = ""


@dataclass(frozen=True, kw_only=True)
class Preference:
    """Two answers to one prompt. `p` is the probability that `chosen` is the better one.

    Or, for KTO, a lone answer: `rejected` is None, and `p` the probability that `chosen` is a desirable answer.
    `named` says that the row names a pair of ours (`pair_id`), as an export does.
    """

    id: str
    prompt: list[dict[str, str]]
    chosen: str
    rejected: str | None
    p: float
    status: str = "ok"
    source: str = ""
    place: str = ""
    named: bool = False


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A row that was read rightly and is of no use here, such as a tie; `place` is `file:line`."""

    place: str
    reason: str


@dataclass(frozen=True)
class Rows(Sequence[R], Generic[R]):
    """The records of one or several files. `left_out` names every row without one, `notes` what to know of others."""

    records: tuple[R, ...]
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[LeftOut, ...] = ()

    @overload
    def __getitem__(self, at: int) -> R: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[R]: ...
    def __getitem__(self, at: Any) -> Any:
        return self.records[at]

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[R]:
        return iter(self.records)

    def told(self) -> list[str]:
        """One line for each reason: how many rows, and the first places."""
        return [*_lines(self.left_out, "left out"), *_lines(self.notes, "read")]


def _lines(rows: Sequence[LeftOut], what: str) -> list[str]:
    by_reason: dict[str, list[str]] = {}
    for row in rows:
        by_reason.setdefault(row.reason, []).append(row.place)
    lines = []
    for reason, places in by_reason.items():
        first, more = places[0], len(places) - _PLACES
        for place in places[1:_PLACES]:
            same_file = place.rpartition(":")[0] == places[0].rpartition(":")[0]
            first += f", {place.rpartition(':')[2] if same_file else place}"
        count = f"{len(places):,} row{'s' if len(places) > 1 else ''} {what}"
        lines.append(f"{first}{f' and {more:,} more' if more > 0 else ''}: {count}: {reason}")
    return lines
