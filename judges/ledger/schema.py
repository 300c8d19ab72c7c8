"""The tables of the ledger. The migrations under `migrations/` build them; a test holds the two together.

Rows are only ever added, with three exceptions: a label may be replaced while its status is a failure, a member
follows the last run, and claims come and go. Digests are stored as 32 bytes and spoken of in hex. Times are seconds
since 1970, UTC.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa


class Digest(sa.TypeDecorator[str]):
    """A sha256: hex in Python, 32 bytes in the database (half the size of the index)."""

    impl = sa.LargeBinary(32)
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Any) -> bytes | None:
        return None if value is None else bytes.fromhex(value)

    def process_result_value(self, value: bytes | None, dialect: Any) -> str | None:
        return None if value is None else bytes(value).hex()


metadata = sa.MetaData()
# SQLite only fills its own row number into a column declared exactly INTEGER.
Sequence = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
# Byte order everywhere, so that exports of the same labels are the same files on both databases.
PairId = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

# What was judged, by content: a conversation and its responses.
items = sa.Table(
    "items",
    metadata,
    sa.Column("digest", Digest, primary_key=True),
    sa.Column("prompt", sa.Text, nullable=False, doc="JSON list of messages"),
    sa.Column("responses", sa.Text, nullable=False, doc="JSON list of strings, in the pair's own order"),
)

# Who judged.
judges = sa.Table(
    "judges",
    metadata,
    sa.Column("digest", Digest, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("revision", sa.Text, nullable=False),
    sa.Column("build", sa.Text, nullable=False, doc="server or library versions; provenance only"),
)

# How it was asked.
methods = sa.Table(
    "methods",
    metadata,
    sa.Column("digest", Digest, primary_key=True),
    sa.Column(
        "content", sa.Text, nullable=False, doc="JSON: template sources, exemplars, read-out, sampling"
    ),
)

# The principles' words, by digest.
principles = sa.Table(
    "principles",
    metadata,
    sa.Column("digest", Digest, primary_key=True),
    sa.Column("text", sa.Text, nullable=False),
)

# One call each, append-only.
judgements = sa.Table(
    "judgements",
    metadata,
    sa.Column("seq", Sequence, primary_key=True, autoincrement=True),
    sa.Column("key", Digest, nullable=False, doc="digest of everything that determines the judgement"),
    sa.Column("item", Digest, nullable=False),
    sa.Column("principle_id", sa.Text, nullable=False),
    sa.Column("principle", Digest, nullable=False),
    sa.Column("shown", sa.Text, nullable=False, doc="order in which the responses were shown: ab, ba, bca"),
    sa.Column("sample", sa.Integer, nullable=False, doc="number of the rationale, from 0"),
    sa.Column("prompt", Digest, nullable=False, doc="digest of the rendered prompt"),
    sa.Column("judge", Digest, nullable=False),
    sa.Column("method", Digest, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("logprobs", sa.Text, doc="JSON list: natural log probability of each option as shown"),
    sa.Column("text", sa.Text, doc="what the judge wrote, where it wrote"),
    sa.Column("detail", sa.Text),
    sa.Column("prompt_tokens", sa.Integer, nullable=False),
    sa.Column("completion_tokens", sa.Integer, nullable=False),
    sa.Column("latency_s", sa.Double, nullable=False),
    sa.Column("cost", sa.Double),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("serving", sa.Text, doc="what decided it beside judge and prompt; empty before schema 0006"),
    sa.UniqueConstraint("key", name="uq_judgements_key"),
)

# Calls that the transport lost, asked again at the next run, and those that the way of serving left without an answer,
# asked again when that changes. Append-only.
failures = sa.Table(
    "failures",
    metadata,
    sa.Column("seq", Sequence, primary_key=True, autoincrement=True),
    sa.Column("key", Digest, nullable=False, doc="the judgement that was attempted"),
    # As in judgements; empty, from `item` to `method`, for calls lost before schema 0005.
    sa.Column("item", Digest),
    sa.Column("principle_id", sa.Text),
    sa.Column("principle", Digest),
    sa.Column("shown", sa.Text),
    sa.Column("sample", sa.Integer),
    sa.Column("prompt", Digest),
    sa.Column("method", Digest),
    sa.Column("judge", Digest, nullable=False),
    sa.Column("status", sa.Text, nullable=False, doc="timeout or error; any failure where there is a cause"),
    sa.Column("detail", sa.Text),
    sa.Column("latency_s", sa.Double, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("serving", sa.Text, doc="as in judgements"),
    sa.Column("cause", sa.Text, doc="what in the way of serving caused it; empty where the transport did"),
    sa.Index("ix_failures_key", "key", "seq"),
)

# Judgements that some worker is asking right now.
claims = sa.Table(
    "claims",
    metadata,
    sa.Column("key", Digest, primary_key=True),
    sa.Column("worker", sa.Text, nullable=False, doc="host:process:start"),
    sa.Column("expires_at", sa.Double, nullable=False),
)

# What the judgements of a pair add up to.
labels = sa.Table(
    "labels",
    metadata,
    sa.Column("seq", Sequence, primary_key=True, autoincrement=True),
    sa.Column("digest", Digest, nullable=False, doc="digest of everything that determines the label"),
    sa.Column("pair_id", PairId, nullable=False),
    sa.Column("item", Digest, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("p", sa.Double, doc="probability that response a is the better one"),
    sa.Column("p_ab", sa.Double),
    sa.Column("p_ba", sa.Double),
    sa.Column("p_raw", sa.Double, doc="p before it was clamped"),
    sa.Column("spread", sa.Double),
    sa.Column("detail", sa.Text),
    sa.Column("principles", sa.Text, nullable=False, doc="JSON list of [id, digest]"),
    sa.Column("judgements", sa.Text, nullable=False, doc="JSON list of keys"),
    sa.Column("made_with", Digest, nullable=False, doc="version of the label set that made it"),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.UniqueConstraint("digest", name="uq_labels_digest"),
)
sa.Index("ix_labels_pair_id", labels.c.pair_id)

# The same comparison principles, judge and way of asking are one set. What determines no label may differ in it, and
# each such difference is a version: the constitution's name and number, the judge's build, the size of a batch.
label_sets = sa.Table(
    "label_sets",
    metadata,
    sa.Column("version", Digest, primary_key=True, doc="digest of the set and the content"),
    sa.Column("digest", Digest, nullable=False, doc="the set"),
    sa.Column("content", sa.Text, nullable=False, doc="JSON: constitution, judge, method, settings"),
    sa.Column("created_at", sa.Double, nullable=False, doc="when it was first used"),
)

# Which label a pair has in a set.
members = sa.Table(
    "members",
    metadata,
    sa.Column("label_set", Digest, primary_key=True),
    sa.Column("pair_id", PairId, primary_key=True),
    sa.Column("label", Digest, nullable=False),
    sqlite_with_rowid=False,
)

# What people said, append-only; the latest of a pair's content counts.
verdicts = sa.Table(
    "verdicts",
    metadata,
    sa.Column("seq", Sequence, primary_key=True, autoincrement=True),
    sa.Column("label", Digest, doc="the label looked at; empty for an imported preference"),
    sa.Column("pair_id", PairId, nullable=False),
    sa.Column("item", Digest, nullable=False),
    sa.Column("winner", sa.Text, nullable=False, doc="a, b or tie"),
    sa.Column("who", sa.Text, nullable=False),
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("shown", sa.Text, doc="order in which the person saw the responses, ab or ba"),
)
sa.Index("ix_verdicts_item", verdicts.c.item)

# What judges were found to be worth, append-only.
exams = sa.Table(
    "exams",
    metadata,
    sa.Column("seq", Sequence, primary_key=True, autoincrement=True),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("revision", sa.Text, nullable=False),
    sa.Column("comparison", Digest, nullable=False, doc="digest of the comparison principles"),
    sa.Column("passed", sa.Boolean, nullable=False),
    sa.Column("report", sa.Text, nullable=False, doc="JSON of the whole report"),
    sa.Column("created_at", sa.Double, nullable=False),
)
