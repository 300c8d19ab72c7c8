"""Labels remember the mean before it was clamped (chain of thought).

Revision: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("labels", sa.Column("p_raw", sa.Double(), nullable=True))
    # Nothing was clamped before.
    op.execute("UPDATE labels SET p_raw = p")


def downgrade() -> None:
    op.drop_column("labels", "p_raw")
