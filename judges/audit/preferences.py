"""Preferences that people gave elsewhere, on their way to the ledger as verdicts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Literal

import sqlalchemy as sa

from judges.errors import JudgeError
from judges.known import KnownPair
from judges.ledger import Ledger, Verdict, schema
from judges.ledger.rows import storable
from judges.ledger.statements import chunks


def as_labelled(ledger: Ledger, known: Sequence[KnownPair]) -> list[KnownPair]:
    """The same pairs, with `a` and `b` as the ledger has them where it has labelled this content under this id."""
    table = schema.labels
    items: set[tuple[str, str]] = set()
    with ledger.read() as connection:
        for chunk in chunks([k.pair.id for k in known]):
            query = sa.select(table.c.pair_id, table.c.item).where(table.c.pair_id.in_(chunk)).distinct()
            items.update((row.pair_id, row.item) for row in connection.execute(query))

    def turned(k: KnownPair) -> bool:
        return (k.pair.id, k.pair.digest) not in items and (k.pair.id, k.pair.swap().digest) in items

    other: dict[str, Literal["a", "b"]] = {"a": "b", "b": "a"}
    return [KnownPair(pair=k.pair.swap(), winner=other[k.winner]) if turned(k) else k for k in known]


def record_preferences(ledger: Ledger, known: Sequence[KnownPair], *, who: str, source: str) -> int:
    """Appends what `who` preferred, as the verdicts of one transaction, and returns how many were new.

    Of several rows on one pair the last counts. What `who` last said about a pair in the same `source` is not
    written again, so reading a file twice adds nothing. Raises JudgeError without a name.
    """
    if not who.strip():
        raise JudgeError("who: a verdict needs the name of who gave it")
    why, now = f"imported from {source}", time.time()
    last = {(k.pair.digest, k.pair.id): k for k in known}
    before = _winners(ledger, who, why, [item for item, _ in last])
    new = {key: k for key, k in last.items() if before.get(key) != k.winner}
    ledger.add_verdicts(
        [
            Verdict(pair_id=pair_id, item=item, winner=k.winner, who=who, why=why, created_at=now)
            for (item, pair_id), k in new.items()
        ],
        [k.pair for k in new.values()],
    )
    return len(new)


def _winners(ledger: Ledger, who: str, why: str, items: Sequence[str]) -> dict[tuple[str, str], str]:
    """The latest winner by item and pair id, of one person and source."""
    table, found = schema.verdicts, {}
    mine = sa.and_(table.c.who == storable(who), table.c.why == storable(why))
    with ledger.read() as connection:
        for chunk in chunks(items):
            query = sa.select(table).where(mine, table.c.item.in_(chunk)).order_by(table.c.seq)
            for row in connection.execute(query):
                found[row.item, row.pair_id] = row.winner
    return found
