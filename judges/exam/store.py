"""Exams in the ledger: what was measured stays, and training asks whether it was enough."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa

from constitution import Constitution
from judges.digests import canonical
from judges.errors import JudgeError
from judges.exam.report import ExamReport
from judges.ledger import Ledger, schema
from judges.ledger.rows import storable
from judges.records import JudgeIdentity


def save_exam(ledger: Ledger, report: ExamReport) -> None:
    """Appends a report."""
    with ledger.write() as connection:
        connection.execute(
            sa.insert(schema.exams),
            {
                "model": report.judge.model,
                "revision": report.judge.revision,
                "comparison": report.comparison_digest,
                "passed": report.passed,
                "report": storable(canonical(report.to_json())),
                "created_at": report.created_at,
            },
        )


def was_any_taken(ledger: Ledger) -> bool:
    """Whether the ledger holds an exam of any judge; who a judge is takes reading all of its weights."""
    with ledger.read() as connection:
        return connection.execute(sa.select(schema.exams.c.seq).limit(1)).first() is not None


def latest_exam(ledger: Ledger, judge: JudgeIdentity, constitution: Constitution) -> ExamReport | None:
    """The newest exam of this judge (model and revision) under these principles, or None."""
    table: Any = schema.exams
    query = (
        sa.select(table.c.report)
        .where(
            table.c.model == judge.model,
            table.c.revision == judge.revision,
            table.c.comparison == constitution.comparison_digest,
        )
        .order_by(table.c.seq.desc())
        .limit(1)
    )
    with ledger.read() as connection:
        found = connection.execute(query).scalar()
    return None if found is None else ExamReport.from_json(json.loads(found))


def require_exam(ledger: Ledger, judge: JudgeIdentity, constitution: Constitution) -> ExamReport:
    """The newest exam if it was passed. Raises JudgeError that says which figure failed, or how to take one."""
    report = latest_exam(ledger, judge, constitution)
    if report is None:
        raise JudgeError(
            f"judge {judge.model} was not examined under {constitution.ref}: run charter judge exam"
        )
    if not report.passed:
        raise JudgeError(
            f"judge {judge.model} failed its exam under {constitution.ref}: {'; '.join(report.problems)}"
        )
    return report
