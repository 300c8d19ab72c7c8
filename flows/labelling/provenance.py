"""What summary, reports and model cards say of a run's exam and audit, and of where a model comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from common.record import ABSENT, REST, Record
from flows.labelling.gates import NO_EXAM, agreement_of, audit_problem, newest_exam
from flows.runs.record import RunRecord
from judges.audit import Agreement
from judges.exam import ExamReport

if TYPE_CHECKING:
    from flows.stages.contract import Stage


@dataclass(frozen=True, kw_only=True)
class ExamSummary(Record):
    """The exam of the run's judge in a few figures, or the reason why there was none."""

    taken: bool
    reason: Annotated[str | None, ABSENT] = None
    passed: Annotated[bool | None, ABSENT] = None
    problems: Annotated[tuple[str, ...] | None, ABSENT] = None
    pairs: Annotated[int | None, ABSENT] = None
    source: Annotated[str | None, ABSENT] = None
    accuracy: Annotated[float | None, ABSENT] = None
    kappa: Annotated[float | None, ABSENT] = None
    more: Annotated[Mapping[str, Any], REST] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class AuditSummary(Agreement):
    """People beside the judge, and what their verdicts have against the labels."""

    problem: str | None


def exam_record(record: RunRecord) -> ExamSummary | None:
    """What summary and cards say of the exam, of this attempt's own stage or else of the newest exam; None before there
    are labels and without a stage for it."""
    own = record.metrics("judge_exam")
    if own.get("taken") or "labels" not in record.outcomes:
        return ExamSummary.from_json(own) if own else None
    report = newest_exam(record.config, record.constitution)
    if report is not None:
        return ExamSummary.from_json(exam_metrics(report))
    return ExamSummary.from_json(own) if own else ExamSummary(taken=False, reason=NO_EXAM)


def exam_metrics(report: ExamReport) -> dict[str, Any]:
    """An exam in a few plain figures."""
    return {
        "taken": True,
        "passed": report.passed,
        "problems": report.problems,
        "pairs": report.pairs,
        "source": report.source,
        "accuracy": report.accuracy.value,
        "kappa": report.kappa,
        "checks": {check.name: check.value for check in report.checks},
    }


def audit_record(record: RunRecord) -> AuditSummary | None:
    """What the summary says of the audit; None without verdicts."""
    found = agreement_of(record)
    if found is None or not found.pairs:
        return None
    return AuditSummary.from_json({**found.to_json(), "problem": audit_problem(record)})


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


def audit_words(audit: AuditSummary | None) -> str:
    """What people's audit of the labels came to."""
    if audit is None or audit.kappa is None:
        return "not taken: no person judged a label"
    if audit.problem:
        return f"failed: {audit.problem}"
    kappa = "{:.2f} ({:.2f}-{:.2f})".format(*audit.kappa.scaled(1))
    return f"people judged {audit.pairs:,} pairs, kappa with the judge {kappa}"
