"""Judgements tell the way they were served in, and lost calls what in it lost them.

Revision: 0006
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Empty in rows so far: nobody wrote it down.
    op.add_column("judgements", sa.Column("serving", sa.Text(), nullable=True))
    op.add_column("failures", sa.Column("serving", sa.Text(), nullable=True))
    op.add_column("failures", sa.Column("cause", sa.Text(), nullable=True))
    op.create_index("ix_failures_key", "failures", ["key", "seq"])


def downgrade() -> None:
    op.drop_index("ix_failures_key", "failures")
    for table, name in (("failures", "cause"), ("failures", "serving"), ("judgements", "serving")):
        op.drop_column(table, name)
