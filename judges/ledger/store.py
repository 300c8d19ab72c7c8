"""The ledger: an append-only database of judgements, the labels they add up to, and people's verdicts."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from operator import itemgetter
from typing import Any, Self, TypeVar

import sqlalchemy as sa

from common.digest import canonical
from judges.errors import LedgerError
from judges.ledger import claims, rows, schema
from judges.ledger.connection import make_engine, make_url, migrate, one_line_errors, refuse_missing
from judges.ledger.rows import Batch, Verdict
from judges.ledger.statements import chunks, insert, insert_new, write_rows
from judges.records import FAILURES, JudgeIdentity, Label, Pair, Reading

T = TypeVar("T")
_UNDONE = ("40P01", "40001")
"""PostgreSQL's states of a transaction that it ended for another's sake: a deadlock, a failed serialisation."""
_ATTEMPTS = 5


class Ledger:
    """One database. Use `Ledger.open(url)`, as a context manager or with `close()`."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self.worker = claims.worker_name()

    @classmethod
    def open(cls, url: str, *, create: bool = True) -> Self:
        """Opens a ledger, and creates it unless told not to: `sqlite:///path`, a path, or `postgresql://user@host/name`.

        The schema is brought up to date. Raises LedgerError, in one line and without the password.
        """
        parsed = make_url(url)
        with one_line_errors(parsed):
            if not create:
                refuse_missing(parsed)
            engine = make_engine(parsed)
            migrate(engine)
        return cls(engine)

    def close(self) -> None:
        """Gives the connections back, and what was claimed here free."""
        claims.retire(self.worker)
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Where the ledger is, without its password."""
        return self._engine.url.render_as_string(hide_password=True)

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A connection whose reads all see the same state. Raises LedgerError."""
        with one_line_errors(self._engine.url), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction: all of it is written, or after any exception nothing. Raises LedgerError."""
        with (
            one_line_errors(self._engine.url),
            self._engine.connect().execution_options(ledger_writes=True) as connection,
            connection.begin(),
        ):
            yield connection

    def register(
        self,
        *,
        judges: Sequence[JudgeIdentity],
        methods: Mapping[str, Any],
        principles: Mapping[str, str],
        label_set: tuple[str, Any],
    ) -> None:
        """Stores what judgements and labels refer to, where it is not there yet.

        That is who judged, how (digest to content), the principles' words, and the label set with its content.
        """
        with self.write() as connection:
            judge_rows = [
                {
                    "digest": rows.judge_digest(judge),
                    "kind": judge.kind,
                    "model": judge.model,
                    "revision": judge.revision,
                    "build": judge.build,
                }
                for judge in judges
            ]
            connection.execute(insert_new(connection, schema.judges), judge_rows)
            method_rows = [{"digest": d, "content": canonical(c)} for d, c in methods.items()]
            connection.execute(insert_new(connection, schema.methods), method_rows)
            if principles:
                principle_rows = [{"digest": d, "text": t} for d, t in principles.items()]
                connection.execute(insert_new(connection, schema.principles), principle_rows)
            digest, content = label_set
            set_row = {
                "version": rows.version_digest(digest, content),
                "digest": digest,
                "content": canonical(content),
                "created_at": time.time(),
            }
            connection.execute(insert_new(connection, schema.label_sets), [set_row])

    def readings(self, keys: Collection[str]) -> dict[str, Reading]:
        """The stored readings among `keys`."""
        table, found = schema.judgements, {}
        with self.read() as connection:
            for chunk in chunks(list(keys)):
                for row in connection.execute(sa.select(table).where(table.c.key.in_(chunk))):
                    found[row.key] = rows.to_reading(row)
        return found

    def former_readings(self, keys: Collection[str]) -> dict[str, Reading]:
        """The same of judgements from before schema 0006, whose way of serving nobody wrote down."""
        table, found = schema.judgements, {}
        with self.read() as connection:
            for chunk in chunks(list(keys)):
                query = sa.select(table).where(table.c.key.in_(chunk), table.c.serving.is_(None))
                for row in connection.execute(query):
                    found[row.key] = rows.to_reading(row)
        return found

    def caused_failures(self, keys: Collection[str]) -> dict[str, Reading]:
        """The latest failure of each of `keys`, where the way of serving caused it."""
        table, found = schema.failures, {}
        with self.read() as connection:
            for chunk in chunks(list(keys)):
                query = sa.select(table).where(table.c.key.in_(chunk)).order_by(table.c.seq)
                for row in connection.execute(query):
                    found[row.key] = rows.to_failure(row)
        return {key: reading for key, reading in found.items() if reading.cause is not None}

    def known_as(self, identity: JudgeIdentity) -> JudgeIdentity:
        """The same judge under the name and revision that its weights have here already: a folder may be renamed."""
        if not identity.by_weights:
            return identity
        table = schema.judges
        revisions = [r for r in (identity.revision, identity.former_revision) if r]
        query = sa.select(table.c.model, table.c.revision).where(table.c.revision.in_(revisions)).distinct()
        with self.read() as connection:
            known = [(row.revision, row.model) for row in connection.execute(query)]
        if not known:
            return identity
        # This revision before the former one, this name before others, and always the same of several.
        revision, model = min(known, key=lambda k: (k[0] != identity.revision, k[1] != identity.model, k[1]))
        return replace(identity, model=model, revision=revision)

    def labels(self, digests: Collection[str]) -> dict[str, Label]:
        """The stored labels among `digests`, failed ones included."""
        table, found = schema.labels, {}
        with self.read() as connection:
            for chunk in chunks(list(digests)):
                for row in connection.execute(sa.select(table).where(table.c.digest.in_(chunk))):
                    found[row.digest] = rows.to_label(row)
        return found

    def members(self, label_set: str, pair_ids: Collection[str]) -> dict[str, str]:
        """The label digests that `pair_ids` have in a label set."""
        table, found = schema.members, {}
        with self.read() as connection:
            for chunk in chunks(list(pair_ids)):
                query = sa.select(table.c.pair_id, table.c.label).where(
                    table.c.label_set == label_set, table.c.pair_id.in_(chunk)
                )
                found.update({row.pair_id: row.label for row in connection.execute(query)})
        return found

    def claim(self, keys: Iterable[str]) -> set[str]:
        """Claims judgements for this process; returns those that nobody else holds or has written."""
        keys = list(keys)
        if not keys:
            return set()

        def take(connection: sa.Connection) -> set[str]:
            taken = claims.take(connection, keys, self.worker)
            # Whoever wrote one between our look and our claim has released it: it is done, not ours.
            written: set[str] = set()
            for chunk in chunks(list(taken)):
                table = schema.judgements
                written.update(
                    connection.execute(sa.select(table.c.key).where(table.c.key.in_(chunk))).scalars()
                )
            claims.release(connection, written, self.worker)
            return taken - written

        return self._again(take)

    def renewing(self) -> AbstractContextManager[None]:
        """Keeps what is claimed here from running out, for as long as this lasts."""

        def renew() -> None:
            with self.write() as connection:
                claims.renew(connection, self.worker)

        return claims.repeated(renew)

    def release(self, keys: Collection[str]) -> None:
        """Gives claims back without having asked."""
        self._end_claims(lambda connection: claims.release(connection, keys, self.worker))

    def add(self, batch: Batch) -> None:
        """Writes a batch in one transaction. What is there already stays as it is, failed labels apart."""

        def write(connection: sa.Connection) -> None:
            # What several may write at once is sorted, so that PostgreSQL workers never wait in a circle; a judgement
            # is written by the one that claimed it.
            for table, values in (
                (schema.items, [rows.item_values(x) for x in sorted(batch.items, key=lambda x: x.digest)]),
                (schema.judgements, [rows.judgement_values(j) for j in batch.judgements]),
                (schema.failures, [rows.failure_values(j) for j in batch.failures]),
            ):
                write_rows(connection, insert_new(connection, table), values)
            labels = [rows.label_values(row) for row in batch.labels]
            if connection.dialect.name == "postgresql":
                labels.sort(key=itemgetter("digest"))
            write_rows(connection, _label_upsert(connection), labels)
            statement = insert(connection, schema.members)
            statement = statement.on_conflict_do_update(
                index_elements=["label_set", "pair_id"], set_={"label": statement.excluded.label}
            )
            members = [
                {"label_set": batch.label_set, "pair_id": pair_id, "label": label}
                for pair_id, label in sorted(batch.members.items())
            ]
            write_rows(connection, statement, members)
            claims.release(connection, batch.released, self.worker)

        self._end_claims(write)

    def _end_claims(self, work: Callable[[sa.Connection], None]) -> None:
        """A transaction that ends claims; if it cannot, its worker is gone, and with it whatever it claimed."""
        try:
            self._again(work)
        except BaseException:
            claims.retire(self.worker)
            self.worker = claims.worker_name()
            raise

    def _again(self, work: Callable[[sa.Connection], T]) -> T:
        """What `work` gives in a transaction, done again where PostgreSQL undid it to end a circle of waiting."""
        for attempt in range(_ATTEMPTS):
            try:
                with self.write() as connection:
                    return work(connection)
            except LedgerError as error:
                undone = getattr(getattr(error.__cause__, "orig", None), "sqlstate", None)
                if undone not in _UNDONE or attempt + 1 == _ATTEMPTS:
                    raise
                time.sleep(random.uniform(0.05, 0.2) * (attempt + 1))
        raise AssertionError

    def add_verdicts(self, verdicts: Sequence[Verdict], pairs: Sequence[Pair] = ()) -> None:
        """Appends what people said. The judge's labels stay beside it."""
        if not verdicts:
            return
        with self.write() as connection:
            if pairs:
                connection.execute(insert_new(connection, schema.items), [rows.item_values(p) for p in pairs])
            connection.execute(sa.insert(schema.verdicts), [_verdict_values(v) for v in verdicts])


def _label_upsert(connection: sa.Connection) -> Any:
    """An INSERT of labels that replaces a row only while its status is a failure."""
    table = schema.labels
    statement = insert(connection, table)
    replaced = ("status", "p", "p_ab", "p_ba", "p_raw", "spread", "detail", "created_at", "made_with")
    return statement.on_conflict_do_update(
        index_elements=["digest"],
        set_={name: statement.excluded[name] for name in replaced},
        where=sa.or_(*(table.c.status == status for status in FAILURES)),
    )


def _verdict_values(verdict: Verdict) -> dict[str, Any]:
    return {
        "label": verdict.label,
        "pair_id": verdict.pair_id,
        "item": verdict.item,
        "winner": verdict.winner,
        "who": rows.storable(verdict.who),
        "why": rows.storable(verdict.why),
        "created_at": verdict.created_at,
        "shown": verdict.shown,
    }
