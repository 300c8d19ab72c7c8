"""The first schema: judgements, failures, claims, labels and their sets, human verdicts.

Revision: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

DIGEST = sa.LargeBinary(32)
SEQUENCE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
PAIR_ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "claims",
        sa.Column("key", DIGEST, nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_table(
        "failures",
        sa.Column("seq", SEQUENCE, autoincrement=True, nullable=False),
        sa.Column("key", DIGEST, nullable=False),
        sa.Column("judge", DIGEST, nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("latency_s", sa.Double(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
    )
    op.create_table(
        "items",
        sa.Column("digest", DIGEST, nullable=False),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.Column("responses", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("digest"),
    )
    op.create_table(
        "judgements",
        sa.Column("seq", SEQUENCE, autoincrement=True, nullable=False),
        sa.Column("key", DIGEST, nullable=False),
        sa.Column("item", DIGEST, nullable=False),
        sa.Column("principle_id", sa.Text(), nullable=False),
        sa.Column("principle", DIGEST, nullable=False),
        sa.Column("shown", sa.Text(), nullable=False),
        sa.Column("sample", sa.Integer(), nullable=False),
        sa.Column("prompt", DIGEST, nullable=False),
        sa.Column("judge", DIGEST, nullable=False),
        sa.Column("method", DIGEST, nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("logprobs", sa.Text(), nullable=True),
        sa.Column("text", sa.Text(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("prompt_tokens", sa.Integer(), nullable=False),
        sa.Column("completion_tokens", sa.Integer(), nullable=False),
        sa.Column("latency_s", sa.Double(), nullable=False),
        sa.Column("cost", sa.Double(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
        sa.UniqueConstraint("key", name="uq_judgements_key"),
    )
    op.create_table(
        "judges",
        sa.Column("digest", DIGEST, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("revision", sa.Text(), nullable=False),
        sa.Column("build", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("digest"),
    )
    op.create_table(
        "label_sets",
        sa.Column("digest", DIGEST, nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("digest"),
    )
    op.create_table(
        "labels",
        sa.Column("seq", SEQUENCE, autoincrement=True, nullable=False),
        sa.Column("digest", DIGEST, nullable=False),
        sa.Column("pair_id", PAIR_ID, nullable=False),
        sa.Column("item", DIGEST, nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("p", sa.Double(), nullable=True),
        sa.Column("p_ab", sa.Double(), nullable=True),
        sa.Column("p_ba", sa.Double(), nullable=True),
        sa.Column("spread", sa.Double(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("principles", sa.Text(), nullable=False),
        sa.Column("judgements", sa.Text(), nullable=False),
        sa.Column("label_set", DIGEST, nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
        sa.UniqueConstraint("digest", name="uq_labels_digest"),
    )
    op.create_index("ix_labels_pair_id", "labels", ["pair_id"], unique=False)
    op.create_table(
        "members",
        sa.Column("label_set", DIGEST, nullable=False),
        sa.Column("pair_id", PAIR_ID, nullable=False),
        sa.Column("label", DIGEST, nullable=False),
        sa.PrimaryKeyConstraint("label_set", "pair_id"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "methods",
        sa.Column("digest", DIGEST, nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("digest"),
    )
    op.create_table(
        "principles",
        sa.Column("digest", DIGEST, nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("digest"),
    )
    op.create_table(
        "verdicts",
        sa.Column("seq", SEQUENCE, autoincrement=True, nullable=False),
        sa.Column("label", DIGEST, nullable=True),
        sa.Column("pair_id", PAIR_ID, nullable=False),
        sa.Column("item", DIGEST, nullable=False),
        sa.Column("winner", sa.Text(), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
    )
    op.create_index("ix_verdicts_item", "verdicts", ["item"], unique=False)


def downgrade() -> None:
    op.drop_table("verdicts")
    op.drop_table("principles")
    op.drop_table("methods")
    op.drop_table("members")
    op.drop_table("labels")
    op.drop_table("label_sets")
    op.drop_table("judges")
    op.drop_table("judgements")
    op.drop_table("items")
    op.drop_table("failures")
    op.drop_table("claims")
