"""What labels cost the judge: calls, tokens and seconds, from the judgements that the labels name."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass

import sqlalchemy as sa

from judges.ledger import schema
from judges.ledger.statements import chunks
from judges.ledger.store import Ledger


@dataclass(frozen=True, kw_only=True)
class Spending:
    """Sums over judgements, each counted once however many labels share it.

    `seconds` are the judge's: a request's latency, shared out over the calls in it, so requests that ran beside each
    other add up to more than the clock says. `charged` is what was written down as cost when the calls were made;
    None where no call had a price.
    """

    judgements: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    charged: float | None = None

    def __add__(self, other: Spending) -> Spending:
        known = [s.charged for s in (self, other) if s.charged is not None]
        return Spending(
            judgements=self.judgements + other.judgements,
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            seconds=self.seconds + other.seconds,
            charged=sum(known) if known else None,
        )


def spending(ledger: Ledger, labels: Collection[str], *, since: float) -> tuple[Spending, Spending]:
    """What the judgements behind these labels (by digest) cost: all of them, and those made at or after `since`.

    `since` is in seconds since 1970. Calls that the transport lost have no tokens and are not counted.
    """
    seen: set[bytes] = set()
    together = recent = Spending()
    for some in chunks(sorted(labels)):
        query = sa.select(schema.labels.c.judgements).where(schema.labels.c.digest.in_(some))
        with ledger.read() as connection:
            named = [key for (keys,) in connection.execute(query) for key in json.loads(keys)]
            # Sixteen of the 32 bytes: a set of millions of them has to fit into memory.
            fresh = [key for key in dict.fromkeys(named) if bytes.fromhex(key[:32]) not in seen]
            seen.update(bytes.fromhex(key[:32]) for key in fresh)
            for keys in chunks(fresh):
                together += _sum(connection, keys, since=None)
                recent += _sum(connection, keys, since=since)
    return together, recent


def _sum(connection: sa.Connection, keys: Collection[str], *, since: float | None) -> Spending:
    table = schema.judgements
    query = sa.select(
        sa.func.count(),
        sa.func.sum(table.c.prompt_tokens),
        sa.func.sum(table.c.completion_tokens),
        sa.func.sum(table.c.latency_s),
        sa.func.sum(table.c.cost),
    ).where(table.c.key.in_(keys))
    if since is not None:
        query = query.where(table.c.created_at >= since)
    count, prompt, completion, seconds, cost = connection.execute(query).one()
    return Spending(
        judgements=count,
        prompt_tokens=prompt or 0,
        completion_tokens=completion or 0,
        seconds=seconds or 0.0,
        charged=cost,
    )
