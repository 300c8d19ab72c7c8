"""The few statements that both databases spell alike but SQLAlchemy keeps apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from judges.ledger.schema import Digest

T = TypeVar("T")
CHUNK = 500
"""Values per IN list: far below both databases' limits, and one statement shape to cache."""


def insert(connection: sa.Connection, table: sa.Table) -> Any:
    """An INSERT that knows ON CONFLICT."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    return dialect.insert(table)


def insert_new(connection: sa.Connection, table: sa.Table) -> Any:
    """An INSERT that leaves rows alone that are already there."""
    return insert(connection, table).on_conflict_do_nothing()


def write_rows(connection: sa.Connection, statement: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """Executes an INSERT of `statement.table` for all `rows`, which have the same columns.

    The driver gets the compiled statement and plain values: SQLAlchemy's own work per row takes as long as the
    database's. Of the ledger's types only digests need converting.
    """
    if not rows:
        return
    compiled = statement.compile(dialect=connection.dialect, column_keys=list(rows[0]))
    # By column, not by row: a list for each of a few columns is made in half the time of a dict for each row.
    columns: dict[str, list[Any]] = {name: [value] * len(rows) for name, value in compiled.params.items()}
    for name in rows[0]:
        cells = [row[name] for row in rows]
        if isinstance(statement.table.c[name].type, Digest):
            cells = [None if cell is None else bytes.fromhex(cell) for cell in cells]
        columns[name] = cells
    parameters: Any
    if compiled.positional:
        assert compiled.positiontup is not None
        parameters = list(zip(*(columns[name] for name in compiled.positiontup), strict=True))
    else:
        parameters = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    connection.exec_driver_sql(str(compiled), parameters)


def chunks(values: Sequence[T], size: int = CHUNK) -> Iterator[Sequence[T]]:
    """Consecutive slices of at most `size`."""
    for start in range(0, len(values), size):
        yield values[start : start + size]
