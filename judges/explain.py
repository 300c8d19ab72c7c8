"""The whole story of one label: pair, principles, judge, prompts, readings, and what people said."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from judges.errors import LedgerError
from judges.ledger import Ledger, Verdict, schema
from judges.ledger.reading import label_set_content, to_verdict
from judges.ledger.rows import to_label, to_reading
from judges.methods import Method
from judges.records import Call, JudgeIdentity, Label, Order, Pair, Ranking, Reading


@dataclass(frozen=True, kw_only=True)
class ExplainedJudgement:
    """One call of the label. `call` is the prompt rendered anew; None if it no longer has the stored digest."""

    key: str
    principle_id: str
    question: str
    order: Order
    reading: Reading
    judge: JudgeIdentity
    prompt_digest: str
    call: Call | None
    created_at: float


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Everything that the ledger knows about a label."""

    label: Label
    pair: Pair
    created_at: float
    label_set: str
    made_with: dict[str, Any]
    judgements: tuple[ExplainedJudgement, ...]
    failures: tuple[tuple[str, str | None, float], ...]
    verdicts: tuple[Verdict, ...]


def explain(ledger: Ledger, ref: str) -> Explanation:
    """The story of the label whose digest begins with `ref`, or of the newest label of the pair with that id.

    Raises LedgerError when there is none, or several digests begin so.
    """
    with ledger.read() as connection:
        row = _find(connection, ref, ledger.url)
        label = to_label(row)
        item = connection.execute(sa.select(schema.items).where(schema.items.c.digest == row.item)).one()
        a, b = json.loads(item.responses)
        pair = Pair(id=row.pair_id, prompt=tuple(json.loads(item.prompt)), a=a, b=b)
        judgements = tuple(_judgement(connection, key, pair.id) for key in label.judgements)
        lost = schema.failures
        failures = connection.execute(
            sa.select(lost.c.status, lost.c.detail, lost.c.created_at)
            .where(lost.c.key.in_(label.judgements))
            .order_by(lost.c.seq)
        )
        verdicts = connection.execute(
            sa.select(schema.verdicts)
            .where(schema.verdicts.c.item == row.item, schema.verdicts.c.pair_id == row.pair_id)
            .order_by(schema.verdicts.c.seq)
        )
        explanation = Explanation(
            label=label,
            pair=pair,
            created_at=row.created_at,
            label_set=row.label_set,
            made_with=label_set_content(ledger, row.label_set),
            judgements=tuple(j for j in judgements if j is not None),
            failures=tuple((f.status, f.detail, f.created_at) for f in failures),
            verdicts=tuple(to_verdict(v) for v in verdicts),
        )
    return explanation


def _find(connection: sa.Connection, ref: str, url: str) -> Any:
    table = schema.labels
    by_pair = sa.select(table).where(table.c.pair_id == ref).order_by(table.c.seq.desc()).limit(1)
    row = connection.execute(by_pair).one_or_none()
    if row is not None:
        return row
    try:
        low, high = bytes.fromhex(ref.ljust(64, "0")).hex(), bytes.fromhex(ref.ljust(64, "f")).hex()
    except ValueError:
        raise LedgerError(f"no label or pair {ref!r} in {url}") from None
    found = connection.execute(sa.select(table).where(table.c.digest.between(low, high)).limit(2)).all()
    if len(found) != 1:
        many = "several labels begin" if found else "no label begins"
        raise LedgerError(f"{many} with {ref!r} in {url}")
    return found[0]


def _judgement(connection: sa.Connection, key: str, pair_id: str) -> ExplainedJudgement | None:
    """A judgement with its prompt; None for a call that was lost and left no judgement."""
    table = schema.judgements
    row = connection.execute(sa.select(table).where(table.c.key == key)).one_or_none()
    if row is None:
        return None
    judge = connection.execute(sa.select(schema.judges).where(schema.judges.c.digest == row.judge)).one()
    method = connection.execute(
        sa.select(schema.methods.c.content).where(schema.methods.c.digest == row.method)
    ).scalar_one()
    question = connection.execute(
        sa.select(schema.principles.c.text).where(schema.principles.c.digest == row.principle)
    ).scalar_one()
    item = connection.execute(sa.select(schema.items).where(schema.items.c.digest == row.item)).one()
    prompt, responses = tuple(json.loads(item.prompt)), tuple(json.loads(item.responses))
    judged: Pair | Ranking
    if len(responses) == 2:
        judged = Pair(id=pair_id, prompt=prompt, a=responses[0], b=responses[1])
    else:
        judged = Ranking(id=pair_id, prompt=prompt, responses=responses)
    call = Method.from_content(json.loads(method)).call(judged, question, row.shown, row.sample)
    return ExplainedJudgement(
        key=key,
        principle_id=row.principle_id,
        question=question,
        order=row.shown,
        reading=to_reading(row),
        judge=JudgeIdentity(kind=judge.kind, model=judge.model, revision=judge.revision, build=judge.build),
        prompt_digest=row.prompt,
        call=call if call.digest == row.prompt else None,
        created_at=row.created_at,
    )
