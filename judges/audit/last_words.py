"""What people last said of every pair that they judged, whether anybody labelled it or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from common.digest import digest
from judges.known import KnownPair
from judges.ledger import Ledger, schema
from judges.ledger.reading import to_pair
from judges.records import Pair


@dataclass(frozen=True, kw_only=True)
class LastWord:
    """The latest verdict on a content, under whichever ids and whichever way round people saw it.

    `pair` and `winner` ("a", "b" or "tie") are as that verdict has them; `who` gave it.
    """

    pair: Pair
    winner: str
    who: str

    @property
    def decided(self) -> KnownPair | None:
        """The pair with its better answer; None for a tie, and for two equal answers."""
        if self.winner == "tie" or self.pair.a == self.pair.b:
            return None
        return KnownPair(pair=self.pair, winner="a" if self.winner == "a" else "b")

    def to_row(self) -> dict[str, Any]:
        """The line `{"id", "prompt", "chosen", "rejected", "who"}` of a pair that was decided."""
        assert self.decided is not None
        return {**self.decided.to_row(), "who": self.who}


def last_words(ledger: Ledger) -> list[LastWord]:
    """The last word on every content that people judged, by the contents' digests."""
    verdicts, items = schema.verdicts, schema.items
    query = (
        sa.select(verdicts.c.pair_id, verdicts.c.winner, verdicts.c.who, items.c.prompt, items.c.responses)
        .join(items, items.c.digest == verdicts.c.item)
        .order_by(verdicts.c.seq)
    )
    latest: dict[str, LastWord] = {}
    with ledger.read() as connection:
        for row in connection.execute(query):
            word = LastWord(pair=to_pair(row), winner=row.winner, who=row.who)
            latest[word.pair.content] = word
    return [latest[content] for content in sorted(latest)]


def last_words_digest(words: Sequence[LastWord]) -> str:
    """sha256 of what people last said. Names do not count: who repeats the last word changes nothing."""
    return digest(sorted([word.pair.content, _better(word)] for word in words))


def _better(word: LastWord) -> str:
    """Which answer is better, whichever way round the pair is."""
    known = word.decided
    if known is None:
        return "tie"
    return known.pair.digest if known.winner == "a" else known.pair.swap().digest
