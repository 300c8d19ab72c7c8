"""Pairs whose better answer is known, from files in any of the formats that `common.rows` reads.

Which answer becomes `a` is decided by a hash of the pair, so that the known winner is `a` about half of the time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from common.errors import DataError
from common.rows import LeftOut, Preference, Rows, pair_digest, read_preferences
from judges.records import Pair


@dataclass(frozen=True, kw_only=True)
class KnownPair:
    """A pair and its better response, "a" or "b". `place` is the row that said so, `named` whether it names a pair
    of a ledger (`pair_id`)."""

    pair: Pair
    winner: Literal["a", "b"]
    place: str = ""
    named: bool = False

    def renamed(self, name: str) -> KnownPair:
        """The same under another id."""
        return replace(self, pair=replace(self.pair, id=name))

    def to_row(self) -> dict[str, Any]:
        """The line of a file of known pairs, `{"id", "prompt", "chosen", "rejected"}`."""
        texts = {"a": self.pair.a, "b": self.pair.b}
        return {
            "id": self.pair.id,
            "prompt": [dict(m) for m in self.pair.prompt],
            "chosen": texts.pop(self.winner),
            "rejected": next(iter(texts.values())),
        }


def read_known_pairs(path: Path, *, limit: int | None = None) -> Rows[KnownPair]:
    """All pairs of a file, or the first `limit`; rows without a preference are left out and named.

    Raises DataError for a file that cannot be read, a malformed row, and where nothing is left.
    """
    read = read_preferences(path, limit=limit)
    # An undecided label is no known answer, whichever answer its row calls the chosen one.
    undecided = [x for x in read if x.p == 0.5]
    left_out = [LeftOut(place=x.place, reason=f"undecided: status {x.status}, p 0.5") for x in undecided]
    known = tuple(known_pair(x) for x in read if x.p != 0.5)
    found = Rows(known, (*read.left_out, *left_out), read.notes)
    if not known:
        raise DataError(f"{path}: holds no pairs with a known answer; {found.told()[0]}")
    return found


def known_pair(read: Preference) -> KnownPair:
    """A preference as a pair and its winner."""
    assert read.rejected is not None
    best, worst = (read.chosen, read.rejected) if read.p > 0.5 else (read.rejected, read.chosen)
    # Not by which is better: people who disagree about a pair speak of the same one.
    texts = sorted([best, worst])
    a, b = texts if int(pair_digest(read.prompt, best, worst)[-1], 16) % 2 == 0 else reversed(texts)
    pair = Pair(id=read.id, prompt=tuple(read.prompt), a=a, b=b)
    return KnownPair(pair=pair, winner="a" if a == best else "b", place=read.place, named=read.named)
