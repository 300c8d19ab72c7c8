"""Preferences that people gave elsewhere, on their way to the ledger as verdicts."""

from __future__ import annotations

import time
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import sqlalchemy as sa

from common.rows import LeftOut
from judges.errors import JudgeError
from judges.known import KnownPair
from judges.ledger import Ledger, Verdict, schema
from judges.ledger.reading import to_pair
from judges.ledger.rows import storable
from judges.ledger.statements import chunks
from judges.records import Pair


@dataclass(frozen=True, kw_only=True)
class Matched:
    """Preferences on their way to a ledger's pairs; `missed` are those that name a pair and hold other texts."""

    known: tuple[KnownPair, ...]
    missed: tuple[LeftOut, ...] = ()


def match_labelled(ledger: Ledger, known: Sequence[KnownPair]) -> Matched:
    """The same pairs as the ledger has them, where it has labelled this content under this id.

    `a` and `b` are as the ledger's. Texts that differ in white space or Unicode form alone are the same content: an
    editor changed them. A row whose `pair_id` the ledger has labelled with other texts would reach no label: it is
    missed.
    """
    labelled = _labelled(ledger, {k.pair.id for k in known})
    found, missed = [], []
    for k in known:
        here = labelled.get(k.pair.id, [])
        pair = next((pair for pair in here if pair.content == k.pair.content), None) or next(
            (pair for pair in here if _loose(pair) == _loose(k.pair) and len(_loose(pair)[1]) == 2), None
        )
        if pair is not None and len(_loose(pair)[1]) == 2:
            better = {"a": k.pair.a, "b": k.pair.b}[k.winner]
            winner: Literal["a", "b"] = "a" if _plain(better) == _plain(pair.a) else "b"
            found.append(replace(k, pair=pair, winner=winner))
        elif pair is not None:
            found.append(k if pair.digest == k.pair.digest else _turned(k))
        elif here and k.named:
            missed.append(LeftOut(place=k.place, reason="the ledger has other texts under this pair_id"))
        else:
            found.append(k)
    return Matched(known=tuple(found), missed=tuple(missed))


def _labelled(ledger: Ledger, pair_ids: Collection[str]) -> dict[str, list[Pair]]:
    """The pairs that the ledger has labels for, by their ids."""
    labels, items, found = schema.labels, schema.items, defaultdict[str, list[Pair]](list)
    columns = (labels.c.pair_id, items.c.prompt, items.c.responses)
    with ledger.read() as connection:
        for chunk in chunks(sorted(pair_ids)):
            query = sa.select(*columns).join(items, items.c.digest == labels.c.item)
            for row in connection.execute(query.where(labels.c.pair_id.in_(chunk)).distinct()):
                found[row.pair_id].append(to_pair(row))
    return found


def _loose(pair: Pair) -> tuple[list[tuple[str, str]], frozenset[str]]:
    prompt = [(turn["role"], _plain(turn["content"])) for turn in pair.prompt]
    return prompt, frozenset(map(_plain, pair.responses))


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def _turned(k: KnownPair) -> KnownPair:
    return replace(k, pair=k.pair.swap(), winner="b" if k.winner == "a" else "a")


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
