"""Verdicts remember in which order the person saw the responses.

Revision: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Empty for verdicts that came without an order, such as imported preferences.
    op.add_column("verdicts", sa.Column("shown", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("verdicts", "shown")
