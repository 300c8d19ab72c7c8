"""Alembic's entry point. The ledger hands over its own connection, inside a transaction that it commits."""

from __future__ import annotations

from alembic import context

from judges.ledger.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
