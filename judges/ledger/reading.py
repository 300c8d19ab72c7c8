"""Reading labels back in bulk: in order, in bounded memory, with people's verdicts beside the judge's."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from judges.errors import LedgerError
from judges.ledger import schema
from judges.ledger.rows import Verdict, to_label
from judges.ledger.statements import CHUNK, chunks
from judges.ledger.store import Ledger
from judges.records import JudgeIdentity, Label, Pair


@dataclass(frozen=True, kw_only=True)
class LabelledPair:
    """A label with its pair, and the latest verdict of a person on the same content, if there is one."""

    pair: Pair
    label: Label
    verdict: Verdict | None = None


def find_label_set(ledger: Ledger, ref: str | None = None) -> str:
    """The digest of a label set from its beginning, or of the newest one that is no exam's.

    Raises LedgerError if there is not one.
    """
    table = schema.label_sets
    query = sa.select(table.c.digest, table.c.content).order_by(table.c.created_at)
    with ledger.read() as connection:
        # A set is as old as its first version.
        sets = {row.digest: json.loads(row.content) for row in connection.execute(query)}
    if ref is not None:
        found = [digest for digest in sets if digest.startswith(ref)]
        if len(found) != 1:
            raise LedgerError(
                f"{len(found)} label sets begin with {ref!r} in {ledger.url}: give more of the digest"
            )
        return found[0]
    found = [digest for digest, content in sets.items() if content.get("purpose") != "exam"]
    if not found:
        raise LedgerError(f"no labels in {ledger.url}")
    return found[-1]


def label_set_content(ledger: Ledger, label_set: str) -> dict[str, Any]:
    """What the newest version of a label set is made with: constitution, judge, method, settings."""
    table = schema.label_sets
    query = sa.select(table.c.content).where(table.c.digest == label_set).order_by(table.c.created_at.desc())
    with ledger.read() as connection:
        content = connection.execute(query.limit(1)).scalar()
    if content is None:
        raise LedgerError(f"no label set {label_set[:12]} in {ledger.url}")
    return json.loads(content)


def judges_of(ledger: Ledger, digests: Collection[str]) -> list[JudgeIdentity]:
    """Who the judges of these digests are, as a label set's content names them; by model and revision."""
    table = schema.judges
    query = (
        sa.select(table).where(table.c.digest.in_(list(digests))).order_by(table.c.model, table.c.revision)
    )
    with ledger.read() as connection:
        return [
            JudgeIdentity(kind=row.kind, model=row.model, revision=row.revision, build=row.build)
            for row in connection.execute(query)
        ]


def judges_by_digest(ledger: Ledger) -> dict[str, JudgeIdentity]:
    """Every judge that the ledger knows, builds apart."""
    with ledger.read() as connection:
        return {
            row.digest: JudgeIdentity(kind=row.kind, model=row.model, revision=row.revision, build=row.build)
            for row in connection.execute(sa.select(schema.judges))
        }


def labelled_pairs(
    ledger: Ledger, label_set: str, *, pair_ids: Collection[str] | None = None
) -> Iterator[LabelledPair]:
    """Labels of a set with their pairs, by pair id, a few hundred at a time; all, or those of `pair_ids`."""
    wanted = None if pair_ids is None else list(chunks(sorted(pair_ids)))
    after: str | None = None
    while True:
        with ledger.read() as connection:
            if wanted is not None:
                if not wanted:
                    return
                condition: Any = schema.members.c.pair_id.in_(wanted.pop(0))
            else:
                condition = sa.true() if after is None else schema.members.c.pair_id > after
            page = _page(connection, label_set, condition)
        yield from page
        if wanted is None:
            if len(page) < CHUNK:
                return
            after = page[-1].pair.id


def labelled_one(ledger: Ledger, label_set: str, label: str) -> LabelledPair:
    """The label with this digest and its pair. Raises LedgerError unless it is its pair's label in the set."""
    found = ledger.labels([label]).get(label)
    ids = () if found is None else (found.pair_id,)
    for one in labelled_pairs(ledger, label_set, pair_ids=ids):
        if one.label.digest == label:
            return one
    raise LedgerError(
        f"no label {label[:12]} in label set {label_set[:12]}: the pair may have another one now"
    )


def _page(connection: sa.Connection, label_set: str, condition: Any) -> list[LabelledPair]:
    members, labels, items = schema.members, schema.labels, schema.items
    query = (
        sa.select(labels, items.c.prompt, items.c.responses)
        .join(members, members.c.label == labels.c.digest)
        .join(items, items.c.digest == labels.c.item)
        .where(members.c.label_set == label_set, condition)
        .order_by(members.c.pair_id)
        .limit(CHUNK)
    )
    rows = list(connection.execute(query))
    verdicts = _latest_verdicts(connection, [row.item for row in rows])
    return [
        LabelledPair(pair=to_pair(row), label=to_label(row), verdict=verdicts.get((row.item, row.pair_id)))
        for row in rows
    ]


def to_pair(row: Any) -> Pair:
    """A pair from a row with its id, prompt and responses."""
    a, b = json.loads(row.responses)
    return Pair(id=row.pair_id, prompt=tuple(json.loads(row.prompt)), a=a, b=b)


def _latest_verdicts(connection: sa.Connection, items: Collection[str]) -> dict[tuple[str, str], Verdict]:
    table, latest = schema.verdicts, {}
    for chunk in chunks(list(items)):
        query = sa.select(table).where(table.c.item.in_(chunk)).order_by(table.c.seq)
        for row in connection.execute(query):
            latest[row.item, row.pair_id] = to_verdict(row)
    return latest


def to_verdict(row: Any) -> Verdict:
    """A verdict from its row."""
    return Verdict(
        pair_id=row.pair_id,
        item=row.item,
        winner=row.winner,
        who=row.who,
        why=row.why,
        created_at=row.created_at,
        label=row.label,
        shown=row.shown,
    )
