"""Claims: which worker is asking which judgement, so that two workers on one ledger never ask the same.

A claim ends when its judgement is written, when its lease runs out, or at once when its worker is gone: a process of
this machine that no longer lives, or a ledger of this process that was closed or could not be written. So neither a
killed run nor one tried again waits for its own ghost. A living worker renews its leases while it works.
"""

from __future__ import annotations

import itertools
import os
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import sqlalchemy as sa

from judges.errors import LedgerError
from judges.ledger.schema import claims
from judges.ledger.statements import chunks, insert_new

LEASE_S = 900.0
"""A worker on another machine is taken for dead this many seconds after it last claimed or renewed."""
PROC = Path("/proc")


_numbers = itertools.count()
_at_work: set[str] = set()


def worker_name() -> str:
    """A new worker as `host:pid:start.number`; the start tells a reused process id from the original."""
    pid = os.getpid()
    worker = f"{socket.gethostname()}:{pid}:{_start_of(pid)}.{next(_numbers)}"
    _at_work.add(worker)
    return worker


def retire(worker: str) -> None:
    """From now on nobody works under this name: what it still claims is free."""
    _at_work.discard(worker)


def is_dead(worker: str) -> bool:
    """Whether `worker` was one of this machine and is gone. Other machines are never declared dead."""
    host, pid, start = worker.rsplit(":", 2)
    if host != socket.gethostname():
        return False
    if int(pid) == os.getpid() and worker not in _at_work:
        return True
    return _start_of(int(pid)) != start.partition(".")[0]


def take(connection: sa.Connection, keys: Iterable[str], worker: str) -> set[str]:
    """Claims what of `keys` nobody holds; returns the keys that are now this worker's and were not before."""
    # In order, here and wherever claims end: two PostgreSQL workers that lock the same rows never wait in a circle.
    wanted = sorted(set(keys))
    now = _now(connection)
    held: dict[str, str] = {}
    for chunk in chunks(wanted):
        rows = connection.execute(
            sa.select(claims.c.key, claims.c.worker).where(claims.c.key.in_(chunk), claims.c.expires_at > now)
        )
        held.update((row.key, row.worker) for row in rows)
    dead = [w for w in set(held.values()) if is_dead(w)]
    free = [key for key in wanted if held.get(key) is None or held[key] in dead]
    taken: set[str] = set()
    for chunk in chunks(free):
        _delete(connection, chunk, sa.or_(claims.c.expires_at <= now, claims.c.worker.in_(dead)))
        # Two PostgreSQL workers may both get here: the insert decides, and each learns what it got.
        mine = [{"key": key, "worker": worker, "expires_at": now + LEASE_S} for key in chunk]
        taken.update(
            connection.execute(insert_new(connection, claims).returning(claims.c.key), mine).scalars()
        )
    return taken


def renew(connection: sa.Connection, worker: str) -> None:
    """Gives every claim of `worker` a whole lease again."""
    # What is locked is being released or taken over: waiting for it could end in a deadlock on PostgreSQL.
    mine = sa.select(claims.c.key).where(claims.c.worker == worker).with_for_update(skip_locked=True)
    connection.execute(
        sa.update(claims).where(claims.c.key.in_(mine)).values(expires_at=_now(connection) + LEASE_S)
    )


@contextmanager
def repeated(renewal: Callable[[], None]) -> Iterator[None]:
    """Calls `renewal` three times a lease for as long as this lasts, in a thread of its own."""
    ended = threading.Event()

    def work() -> None:
        while not ended.wait(LEASE_S / 3):
            # A lease outlasts a renewal that fails; what the ledger suffers from, the next batch reports.
            with suppress(LedgerError):
                renewal()

    thread = threading.Thread(target=work, name="claims", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def release(connection: sa.Connection, keys: Collection[str], worker: str) -> None:
    """Gives this worker's claims on `keys` back."""
    for chunk in chunks(sorted(keys)):
        _delete(connection, chunk, claims.c.worker == worker)


def _delete(connection: sa.Connection, keys: Collection[str], which: sa.ColumnElement[bool]) -> None:
    """Ends the claims on `keys` that are `which`, locked in the order of their keys."""
    condition = sa.and_(claims.c.key.in_(keys), which)
    if connection.dialect.name == "postgresql":
        connection.execute(
            sa.select(claims.c.key).where(condition).order_by(claims.c.key).with_for_update()
        ).all()
    connection.execute(sa.delete(claims).where(condition))


def _now(connection: sa.Connection) -> float:
    """Seconds since 1970 by the database's clock: machines that share a PostgreSQL ledger have clocks that differ."""
    if connection.dialect.name == "postgresql":
        return float(connection.execute(sa.text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())
    return time.time()


def _start_of(pid: int) -> str:
    """When process `pid` started, as boot id and clock ticks; empty when there is no such living process."""
    if not PROC.is_dir():  # no procfs: process ids alone have to do
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return ""
        except PermissionError:
            pass
        return "alive"
    try:
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        boot = (PROC / "sys/kernel/random/boot_id").read_text()[:8]
    except OSError:
        return ""
    state, ticks = fields[0], fields[19]
    return "" if state in "ZX" else f"{boot}-{ticks}"
