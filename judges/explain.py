"""The whole story of one label: pair, principles, judge, prompts, readings, and what people said."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from judges.asking.methods import Method
from judges.errors import LedgerError
from judges.ledger import Ledger, Verdict, schema
from judges.ledger.reading import to_verdict
from judges.ledger.rows import to_label, to_reading
from judges.records import Call, JudgeIdentity, Label, Order, Pair, Ranking, Reading


@dataclass(frozen=True, kw_only=True)
class ExplainedJudgement:
    """One call of the label, answered or lost; a lost one's reading has no tokens.

    `call` is the prompt rendered anew; None if it no longer has the stored digest.
    """

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
    """Everything that the ledger knows about a label.

    `made_with` is what its label set was made with at the time; `same_text` names other versions and working files
    of the constitution, in order of their first use, under which it would have been the same label. `failures` are
    the lost calls, oldest first.
    """

    label: Label
    pair: Pair
    created_at: float
    label_set: str
    made_with: dict[str, Any]
    same_text: tuple[str, ...]
    judgements: tuple[ExplainedJudgement, ...]
    failures: tuple[ExplainedJudgement, ...]
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
        label_set, made_with, same_text = _made_with(connection, row.made_with, ledger.url)
        table, lost = schema.judgements, schema.failures
        answered = connection.execute(sa.select(table).where(table.c.key.in_(label.judgements)))
        rows = {judgement.key: judgement for judgement in answered}
        # Of calls lost before the ledger kept it, nobody knows what was asked.
        failures = connection.execute(
            sa.select(lost)
            .where(lost.c.key.in_(label.judgements), lost.c.method.is_not(None))
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
            label_set=label_set,
            made_with=made_with,
            same_text=same_text,
            judgements=tuple(
                _explained(connection, rows[key], pair.id, to_reading(rows[key]))
                for key in label.judgements
                if key in rows
            ),
            failures=tuple(
                _explained(
                    connection, f, pair.id, Reading(status=f.status, detail=f.detail, latency_s=f.latency_s)
                )
                for f in failures.all()
            ),
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


def _made_with(connection: sa.Connection, version: str, url: str) -> tuple[str, Any, tuple[str, ...]]:
    """The label set that has this version, the version's content, and the set's other constitutions."""
    table = schema.label_sets
    this = sa.select(table.c.digest).where(table.c.version == version).scalar_subquery()
    query = sa.select(table).where(table.c.digest == this).order_by(table.c.created_at)
    found = {row.version: row for row in connection.execute(query)}
    if version not in found:
        raise LedgerError(f"no label set {version[:12]} in {url}")
    contents = {key: json.loads(row.content) for key, row in found.items()}
    refs = dict.fromkeys(content["constitution"]["ref"] for content in contents.values())
    refs.pop(contents[version]["constitution"]["ref"])
    return found[version].digest, contents[version], tuple(refs)


def _explained(connection: sa.Connection, row: Any, pair_id: str, reading: Reading) -> ExplainedJudgement:
    """A row of judgements or failures with its prompt."""
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
        key=row.key,
        principle_id=row.principle_id,
        question=question,
        order=row.shown,
        reading=reading,
        judge=JudgeIdentity(kind=judge.kind, model=judge.model, revision=judge.revision, build=judge.build),
        prompt_digest=row.prompt,
        call=call if call.digest == row.prompt else None,
        created_at=row.created_at,
    )
