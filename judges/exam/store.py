"""Exams in the ledger: what was measured stays, and training asks whether it was enough."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from common.digest import canonical
from constitution import Constitution
from judges.asking.methods import Method
from judges.errors import JudgeError
from judges.exam.protocol import method_digest, protocol_digest
from judges.exam.report import ExamReport
from judges.ledger import Ledger, schema
from judges.ledger.reading import label_set_content
from judges.ledger.rows import storable
from judges.records import JudgeIdentity
from judges.settings import LabelSettings


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


def was_any_taken(ledger: Ledger, constitution: Constitution, settings: LabelSettings) -> bool:
    """Whether any judge was examined so; who a judge is takes reading all of its weights."""
    protocol = protocol_digest(settings, constitution)
    return next(_exams(ledger, constitution.comparison_digest, protocol), None) is not None


def latest_exam(
    ledger: Ledger, judge: JudgeIdentity, constitution: Constitution, settings: LabelSettings
) -> ExamReport | None:
    """The newest exam of this judge (model and revision) under these principles, asked as `settings` ask, or None."""
    protocol = protocol_digest(settings, constitution)
    return next(_exams(ledger, constitution.comparison_digest, protocol, judge), None)


def exam_of_labels(ledger: Ledger, judge: JudgeIdentity, label_set: str) -> ExamReport | None:
    """The newest exam of a label set's judge under its principles, asked as its labels were asked, or None.

    Raises LedgerError where the ledger does not hold the label set.
    """
    content = label_set_content(ledger, label_set)
    table = schema.methods
    with ledger.read() as connection:
        method = connection.execute(
            sa.select(table.c.content).where(table.c.digest == content["method"])
        ).scalar_one()
    protocol = method_digest(Method.from_content(json.loads(method)), LabelSettings(**content["settings"]))
    return next(_exams(ledger, content["constitution"]["comparison_digest"], protocol, judge), None)


def require_exam(
    ledger: Ledger, judge: JudgeIdentity, constitution: Constitution, settings: LabelSettings
) -> ExamReport:
    """The newest exam if it was passed. Raises JudgeError that says which figure failed, or how to take one."""
    report = latest_exam(ledger, judge, constitution, settings)
    if report is None:
        raise JudgeError(
            f"judge {judge.model} was not examined under {constitution.ref} as it is asked here: charter judge exam "
            f"--config FILE (a run's), or with its options and --ledger {ledger.url}"
        )
    require_passed(report)
    return report


def require_passed(report: ExamReport) -> None:
    """Raises JudgeError that says which figures failed."""
    if not report.passed:
        raise JudgeError(
            f"judge {report.judge.model} failed its exam under {report.constitution}: {'; '.join(report.problems)}"
        )


def _exams(
    ledger: Ledger, comparison: str, protocol: str, judge: JudgeIdentity | None = None
) -> Iterator[ExamReport]:
    """Exams under these principles asked so, of one judge or of all, newest first."""
    table: Any = schema.exams
    query = sa.select(table.c.report).where(table.c.comparison == comparison).order_by(table.c.seq.desc())
    if judge is not None:
        revisions = [judge.revision, judge.former_revision] if judge.by_weights else [judge.revision]
        query = query.where(table.c.revision.in_(revisions))
        if not judge.by_weights:
            query = query.where(table.c.model == judge.model)
    with ledger.read() as connection:
        found = [json.loads(row.report) for row in connection.execute(query)]
    reports = (ExamReport.from_json(report) for report in found if report.get("way") == protocol)
    return (r for r in reports if judge is None or r.judge.thoughts == judge.thoughts)
