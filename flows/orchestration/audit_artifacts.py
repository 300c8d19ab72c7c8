"""Artifacts of exam and audit, published as soon as there is something to see: `judge-exam`, `label-audit`,
`principle-report-card`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prefect.artifacts import create_markdown_artifact

from common.text import clip, escape_markdown
from flows.labelling.ledger import ledger_of
from flows.orchestration.artifacts import a_view_only
from flows.orchestration.audit_view import link
from flows.orchestration.judging import publish_exam
from flows.report.audit import card_markdown, report_markdown
from flows.stages import judge_exam, labels
from judges import Ledger
from judges.audit import audit, report_card
from judges.exam import ExamReport

if TYPE_CHECKING:
    from flows.pipeline.session import Session
    from flows.stages.contract import Stage


@contextmanager
def shown_after(session: Session, stage: Stage) -> Iterator[None]:
    """Publishes what a stage leaves: the exam also, and above all, when it ended the run."""
    try:
        yield
    finally:
        with a_view_only():
            if stage.name == judge_exam.STAGE.name:
                _show_exam(session)
            elif stage.name == labels.STAGE.name:
                _show_labels(session)


def _show_exam(session: Session) -> None:
    key, _, _ = session.plan(judge_exam.STAGE)
    path = session.directory.stage_path(judge_exam.STAGE.name, key) / judge_exam.REPORT
    if path.is_file():
        publish_exam(ExamReport.from_json(json.loads(path.read_text(encoding="utf-8"))))


def _show_labels(session: Session) -> None:
    outcome = session.outcomes.get(labels.STAGE.name)
    if outcome is None or outcome.reused:
        return
    mark = "" if session.constitution.published else " (unpublished)"
    with Ledger.open(ledger_of(session.config)) as ledger:
        publish_audit(
            ledger,
            outcome.manifest.metrics["label_set"],
            title=f"{session.config.name}, {clip(session.constitution.ref)}{mark}",
            sampled=session.config.audit.sample,
            seed=session.config.seed,
        )


def publish_audit(ledger: Ledger, label_set: str, *, title: str, sampled: int, seed: int) -> None:
    """The audit of a label set and its principle scorecard, each a new version of its artifact."""
    views = audit_views(ledger, label_set, title=title, sampled=sampled, seed=seed)
    for key, markdown in views.items():
        create_markdown_artifact(key=key, markdown=markdown, description=escape_markdown(title, limit=200))


def audit_views(ledger: Ledger, label_set: str, *, title: str, sampled: int, seed: int) -> dict[str, str]:
    """The Markdown of each artifact, by its key."""
    report = audit(ledger, label_set, sampled=sampled, seed=seed)
    card = report_card(ledger, label_set)
    return {
        "label-audit": link(ledger, "Judge these labels") + "\n\n" + report_markdown(report, title=title),
        "principle-report-card": card_markdown(card, title=title),
    }
