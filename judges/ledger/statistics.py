"""Sums over the ledger: what a plan needs to know, and what a person wants to see."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa

from judges.ledger import schema
from judges.ledger.statements import CHUNK
from judges.ledger.store import Ledger
from judges.records import TRANSIENT, Status


class PlanStatistics:
    """What `constitution.plan` asks a ledger (its Protocol `LedgerStatistics`)."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def judged(self) -> Iterator[tuple[str, str, str]]:
        """(pair id, principle id, principle digest) of every pair judged under a principle, lost calls apart."""
        table, after = schema.labels, 0
        while True:
            query = (
                sa.select(table.c.seq, table.c.pair_id, table.c.principles)
                .where(table.c.seq > after, table.c.status.not_in(TRANSIENT))
                .order_by(table.c.seq)
                .limit(20 * CHUNK)
            )
            with self._ledger.read() as connection:
                rows = list(connection.execute(query))
            for row in rows:
                for principle_id, principle_digest in json.loads(row.principles):
                    yield row.pair_id, principle_id, principle_digest
            if not rows:
                return
            after = rows[-1].seq

    def calls_per_judgement(self) -> float | None:
        """Mean number of calls behind one pair under one principle; None in an empty ledger."""
        table = schema.labels
        query = sa.select(table.c.principles, table.c.judgements).order_by(table.c.seq.desc()).limit(CHUNK)
        with self._ledger.read() as connection:
            rows = list(connection.execute(query))
        principles = sum(len(json.loads(row.principles)) for row in rows)
        return sum(len(json.loads(row.judgements)) for row in rows) / principles if principles else None

    def tokens_per_call(self) -> float | None:
        """Mean prompt and completion tokens of a call; None when unknown."""
        table = schema.judgements
        return self._mean(table.c.prompt_tokens + table.c.completion_tokens, table.c.prompt_tokens > 0)

    def seconds_per_call(self) -> float | None:
        """Mean judge time of a call in seconds, batches shared out; None when unknown."""
        return self._mean(schema.judgements.c.latency_s, schema.judgements.c.latency_s > 0)

    def _mean(self, value: sa.ColumnElement, condition: sa.ColumnElement[bool]) -> float | None:
        with self._ledger.read() as connection:
            mean = connection.execute(sa.select(sa.func.avg(value)).where(condition)).scalar()
        return None if mean is None else float(mean)


@dataclass(kw_only=True)
class Tally:
    """Counts and means over some labels of a set.

    `decided` is the mean distance of p from one half, `lead` how much more probability the first slot gets than
    the second (0 for a judge that does not care), both over labels with a probability.
    """

    labels: int = 0
    statuses: Counter[Status] = field(default_factory=Counter)
    decided: float = 0.0
    lead: float = 0.0


@dataclass(frozen=True, kw_only=True)
class SetStatistics:
    """Everything that `charter labels stats` shows of one label set."""

    overall: Tally
    by_principle: dict[str, Tally]
    judgements: int
    failures: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    cost: float | None


def set_statistics(ledger: Ledger, label_set: str, *, judges: Sequence[str], method: str) -> SetStatistics:
    """Sums of one label set; `judges` and `method` are the digests that its content names.

    Calls are those of these models and revisions asked in this way, whichever server or library answered.
    """
    labels, members, judgements, failures = (
        schema.labels,
        schema.members,
        schema.judgements,
        schema.failures,
    )
    in_set = sa.join(members, labels, members.c.label == labels.c.digest)
    grouped = (
        sa.select(
            labels.c.principles,
            labels.c.status,
            sa.func.count().label("n"),
            sa.func.count(labels.c.p).label("with_p"),
            sa.func.sum(sa.func.abs(labels.c.p - 0.5)).label("decided"),
            sa.func.sum(labels.c.p_ab - labels.c.p_ba).label("lead"),
        )
        .select_from(in_set)
        .where(members.c.label_set == label_set)
        .group_by(labels.c.principles, labels.c.status)
    )
    named, judge = schema.judges.alias(), schema.judges
    builds = (
        sa.select(judge.c.digest)
        .join(named, sa.and_(named.c.model == judge.c.model, named.c.revision == judge.c.revision))
        .where(named.c.digest.in_(judges))
    )
    calls = sa.select(
        sa.func.count(),
        sa.func.sum(judgements.c.prompt_tokens),
        sa.func.sum(judgements.c.completion_tokens),
        sa.func.sum(judgements.c.latency_s),
        sa.func.sum(judgements.c.cost),
    ).where(judgements.c.judge.in_(builds), judgements.c.method == method)
    with ledger.read() as connection:
        groups = list(connection.execute(grouped))
        count, prompt_tokens, completion_tokens, seconds, cost = connection.execute(calls).one()
        lost = sa.select(sa.func.count()).where(failures.c.judge.in_(builds), failures.c.method == method)
        n_failures = connection.execute(lost).scalar_one()
    overall = Tally()
    by_principle: dict[str, Tally] = {}
    with_p: Counter[str] = Counter()
    for row in groups:
        names = [p[0] for p in json.loads(row.principles)]
        tallies = {"": overall} | {name: by_principle.setdefault(name, Tally()) for name in names}
        for name, tally in tallies.items():
            tally.labels += row.n
            tally.statuses[row.status] += row.n
            tally.decided += row.decided or 0.0
            tally.lead += row.lead or 0.0
            with_p[name] += row.with_p
    for name, tally in ({"": overall} | by_principle).items():
        tally.decided /= with_p[name] or 1
        tally.lead /= with_p[name] or 1
    return SetStatistics(
        overall=overall,
        by_principle=by_principle,
        judgements=count,
        failures=n_failures,
        prompt_tokens=prompt_tokens or 0,
        completion_tokens=completion_tokens or 0,
        seconds=seconds or 0.0,
        cost=cost,
    )
