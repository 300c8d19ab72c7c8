"""What the card of a model says of where it comes from, when its training begins."""

from __future__ import annotations

from typing import Any

from flows.labelling.gates import ExamSummary, audit_record, exam_record
from flows.report.lineage.facts import audit_words
from flows.runs.record import RunRecord
from flows.stages.contract import Stage


def training_provenance(record: RunRecord, stage: Stage) -> dict[str, Any]:
    """Run and constitution; for a model that learns from the labels also these, the judge's exam and people's audit."""
    known: dict[str, Any] = {
        "run": record.config.name,
        "constitution": record.constitution.ref,
        "constitution_digest": record.constitution.digest,
        "published": record.constitution.published,
    }
    labels = record.outcomes.get("labels")
    # Gold of people's verdicts owes nothing to the labels.
    if labels is None or stage.isolated or stage.name == "gold_model":
        return known
    return {
        **known,
        "label_set": labels.manifest.metrics["label_set"],
        "judge_exam": _exam_words(exam_record(record)),
        "audit": audit_words(audit_record(record)),
    }


def _exam_words(exam: ExamSummary | None) -> str:
    if exam is None:
        return "not taken"
    if not exam.taken:
        return f"not taken: {exam.reason}"
    accuracy = "not measured" if exam.accuracy is None else f"{exam.accuracy:.3f}"
    figures = f"accuracy {accuracy} on {exam.pairs} pairs, kappa {exam.kappa:.3f}"
    return f"{'passed' if exam.passed else 'failed: ' + '; '.join(exam.problems or ())}, {figures}"
