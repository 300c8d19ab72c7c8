"""Opening the database: URL, pragmas, transactions, migrations, and one-line errors."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from judges.errors import LedgerError

HEAD = "0006"
"""The schema version that this code reads and writes: the newest file under `migrations/versions`."""
MIGRATIONS = Path(__file__).parent / "migrations"
# Long enough for another worker's batch to commit; past it something is stuck, and the run says so.
BUSY_TIMEOUT_S = 30.0
FULL = "no space is left; the last batch was not written, free some and start again"
# Any number does; it names the advisory lock under which PostgreSQL ledgers are migrated.
MIGRATION_LOCK = 7_261_940_318


def make_url(url: str) -> sa.URL:
    """A database URL from `sqlite:///path`, a bare path, or `postgresql://…` (driven by psycopg)."""
    if "://" not in url:
        return sa.URL.create("sqlite", database=url)
    try:
        parsed = sa.make_url(url)
    except SQLAlchemyError as error:
        raise LedgerError("not a database URL: give sqlite:///path or postgresql://user@host/name") from error
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername not in ("sqlite", "postgresql+psycopg"):
        raise LedgerError(f"no ledger on {parsed.drivername!r}: give sqlite:///path or postgresql://…")
    return parsed


def make_engine(url: sa.URL) -> sa.Engine:
    """An engine whose SQLite transactions are real ones: writers take their lock at BEGIN."""
    if url.drivername != "sqlite":
        try:
            engine = sa.create_engine(url, pool_pre_ping=True)
        except ModuleNotFoundError as error:
            raise LedgerError("PostgreSQL needs psycopg: pip install 'charter[postgres]'") from error

        @sa.event.listens_for(engine, "connect")
        def _limit(connection: Any, _record: Any) -> None:
            # Without it, PostgreSQL waits for a lock for ever.
            connection.execute(f"SET lock_timeout = '{int(1000 * BUSY_TIMEOUT_S)}ms'")
            connection.commit()

        return engine
    if not url.database or url.database == ":memory:":
        raise LedgerError("a ledger needs a file: sqlite:///path")
    Path(url.database).expanduser().resolve().parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_S})

    @sa.event.listens_for(engine, "connect")
    def _prepare(connection: sqlite3.Connection, _record: Any) -> None:
        # The driver's own transaction handling leaves DDL outside; ours begins below.
        connection.isolation_level = None
        _write_ahead(connection)
        # Every commit reaches the disk: what was judged stays judged even when the power goes.
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA cache_size=-65536")
        # Keys are hashes, so every batch touches pages all over the index: write them back rarely, merged.
        connection.execute("PRAGMA wal_autocheckpoint=16384")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        # A reader that turns writer halfway cannot wait for its turn in SQLite: it fails at once.
        writes = connection.get_execution_options().get("ledger_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Puts the file into WAL mode.

    While another process holds the lock of a file that is not in WAL mode yet, SQLite refuses the change at once,
    whatever the connection's timeout says: so the waiting is ours.
    """
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


@contextmanager
def one_line_errors(url: sa.URL) -> Iterator[None]:
    """Turns database errors into a LedgerError of one line that names the ledger without its password."""
    try:
        yield
    except DBAPIError as error:
        reason = str(error.orig).strip().splitlines()[0] if error.orig else type(error).__name__
        locked = f"another process has held it for {BUSY_TIMEOUT_S:.0f} s; nothing was written, start again"
        hints = {
            "locked": locked,
            "lock timeout": locked,
            "full": FULL,
            "No space left": FULL,
        }
        hint = next((f" ({text})" for word, text in hints.items() if word in reason), "")
        raise LedgerError(f"ledger {url.render_as_string(hide_password=True)}: {reason}{hint}") from error


def migrate(engine: sa.Engine) -> None:
    """Brings the schema to HEAD. Several processes may open a new ledger at once: one migrates, others wait.

    Raises LedgerError when the ledger was written by a newer version.
    """
    with engine.connect() as connection:
        found = _version(connection)
    if found == HEAD:
        return
    with engine.connect().execution_options(ledger_writes=True) as connection, connection.begin():
        if connection.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(MIGRATION_LOCK)))
        found = _version(connection)
        if found == HEAD:
            return
        if found is not None and found > HEAD:
            raise LedgerError(f"the ledger has schema {found}, newer than {HEAD}: update charter")
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, HEAD)


def refuse_missing(url: sa.URL) -> None:
    """Raises LedgerError where `url` holds no ledger, and leaves nothing behind."""
    if url.drivername == "sqlite" and url.database:
        file = Path(url.database)
        if not file.is_file():
            raise LedgerError(f"no ledger at {file}")
        uri = f"{file.resolve().as_uri()}?mode=ro"
        engine = sa.create_engine(url, creator=lambda: sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S))
    else:
        engine = make_engine(url)
    try:
        with engine.connect() as connection:
            if _version(connection) is None:
                raise LedgerError(f"no ledger at {url.render_as_string(hide_password=True)}")
    finally:
        engine.dispose()


def _version(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
