"""Label sets keep every version of what they were made with, labels name theirs, and lost calls what was asked.

Revision: 0005
"""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

from common.digest import digest
from judges.errors import LedgerError

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

DIGEST = sa.LargeBinary(32)


def upgrade() -> None:
    # Empty for calls lost so far: only their judge and their end are known.
    for name, kind in (
        ("item", DIGEST),
        ("principle_id", sa.Text()),
        ("principle", DIGEST),
        ("shown", sa.Text()),
        ("sample", sa.Integer()),
        ("prompt", DIGEST),
        ("method", DIGEST),
    ):
        op.add_column("failures", sa.Column(name, kind, nullable=True))
    connection = op.get_bind()
    sets = connection.exec_driver_sql("SELECT digest, content, created_at FROM label_sets").all()
    op.drop_table("label_sets")
    label_sets = op.create_table(
        "label_sets",
        sa.Column("version", DIGEST, nullable=False),
        sa.Column("digest", DIGEST, nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("version"),
    )
    # Alembic spells a new name for SQLite only by copying the whole table.
    op.execute("ALTER TABLE labels RENAME COLUMN label_set TO made_with")
    labels = sa.table("labels", sa.column("made_with", DIGEST))
    for found, content, created_at in sets:
        version = bytes.fromhex(digest([bytes(found).hex(), json.loads(content)]))
        row = {"version": version, "digest": found, "content": content, "created_at": created_at}
        connection.execute(sa.insert(label_sets), row)
        connection.execute(
            sa.update(labels).where(labels.c.made_with == bytes(found)).values(made_with=version)
        )


def downgrade() -> None:
    raise LedgerError(
        "the ledger does not go back from schema 0005: several versions of a label set do not fit into one row"
    )
