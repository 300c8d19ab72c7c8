"""A person's verdicts on their way to the ledger, where nothing is ever erased."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import sqlalchemy as sa

from common.digest import digest
from judges.errors import JudgeError
from judges.ledger import Ledger, Verdict, schema
from judges.ledger.reading import LabelledPair, to_verdict
from judges.ledger.statements import chunks
from judges.records import Order

Said = Literal["A", "B", "tie", "skip"]
SAID: tuple[Said, ...] = ("A", "B", "tie", "skip")
"""What a person may say: the response shown first, the one shown second, neither, nothing."""


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a person said about one pair, in the letters under which they saw the responses.

    `shown` "ab" means that response `a` of the pair stood under the letter A, "ba" that `b` did.
    """

    labelled: LabelledPair
    shown: Order
    said: Said
    note: str = ""

    @property
    def winner(self) -> str | None:
        """The verdict on the pair itself, "a", "b" or "tie"; None where the person skipped it."""
        if self.said == "skip":
            return None
        return "tie" if self.said == "tie" else self.shown["AB".index(self.said)]


def shown_order(pair_id: str, reviewer: str, *, seed: int) -> Order:
    """The order in which a reviewer sees a pair: each response stands first about half of the time."""
    raw = hashlib.sha256(f"shown:{seed}:{reviewer}:{pair_id}".encode("utf-8", "replace")).digest()
    return "ab" if raw[0] % 2 else "ba"


def record(ledger: Ledger, given: Sequence[Given], *, reviewer: str) -> int:
    """Appends verdicts in one transaction and returns how many were new.

    What is skipped is not written, nor what the same reviewer said last about the same label in the same words.
    Raises JudgeError without a reviewer's name.
    """
    if not reviewer.strip():
        raise JudgeError("reviewer: a verdict needs the name of who gave it")
    before = latest_of(ledger, reviewer, [g.labelled.pair.digest for g in given])
    now = time.time()
    verdicts = []
    for g in given:
        pair, winner = g.labelled.pair, g.winner
        last = before.get((pair.digest, pair.id))
        if winner is None or (last is not None and (last.winner, last.why) == (winner, g.note)):
            continue
        verdicts.append(
            Verdict(
                pair_id=pair.id,
                item=pair.digest,
                winner=winner,
                who=reviewer,
                why=g.note,
                created_at=now,
                label=g.labelled.label.digest,
                shown=g.shown,
            )
        )
    ledger.add_verdicts(verdicts)
    return len(verdicts)


def judged_by(ledger: Ledger, reviewer: str) -> set[str]:
    """Ids of the pairs that a reviewer has judged."""
    table = schema.verdicts
    with ledger.read() as connection:
        return set(connection.execute(sa.select(table.c.pair_id).where(table.c.who == reviewer)).scalars())


def verdicts_digest(ledger: Ledger) -> str | None:
    """sha256 of what people last said about every pair; None while nobody has said anything.

    A verdict that repeats the one before it changes nothing, so nothing is trained again for it.
    """
    table, latest = schema.verdicts, {}
    with ledger.read() as connection:
        query = sa.select(table.c.pair_id, table.c.item, table.c.winner).order_by(table.c.seq)
        for row in connection.execute(query):
            latest[row.item, row.pair_id] = row.winner
    return digest(sorted([*key, winner] for key, winner in latest.items())) if latest else None


def latest_of(ledger: Ledger, who: str, items: Sequence[str]) -> dict[tuple[str, str], Verdict]:
    """A reviewer's last verdicts on contents (`Pair.digest`), by content and pair id."""
    table, found = schema.verdicts, {}
    with ledger.read() as connection:
        for chunk in chunks(list(items)):
            query = sa.select(table).where(table.c.item.in_(chunk), table.c.who == who).order_by(table.c.seq)
            for row in connection.execute(query):
                found[row.item, row.pair_id] = to_verdict(row)
    return found
