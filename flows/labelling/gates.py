"""What must hold before anything is trained on labels: the judge's exam, and what people say of its labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from common.record import ABSENT, REST, Record
from constitution import Constitution
from flows.config import RunConfig
from flows.config.judging import EXAMS
from flows.errors import FlowError
from flows.labelling.judge import label_settings, make_judge
from flows.labelling.ledger import existing, existing_ledger, ledger_of
from flows.runs.progress import Reporter
from flows.runs.record import RunRecord
from judges import JudgeError, JudgeIdentity
from judges.audit import Agreement, agreement
from judges.exam import ExamReport, latest_exam, require_passed, save_exam, was_any_taken

_NO_EXAM = "the configuration names no exam.pairs, and nobody took an exam that asks as this run does"


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


def labelling_gate(record: RunRecord, reporter: Reporter) -> None:
    """Raises FlowError when the judge failed its exam and the config requires one; without any, says so in one line."""
    report = exam_gate(record.config, record.constitution)
    if report is None and record.config.exam.require:
        path = record.directory.history(record.attempt) / "config.yaml"
        reporter.warned(
            f"the judge was not examined: {_NO_EXAM}; charter judge exam --config {path} --pairs FILE takes one"
        )


def training_gate(record: RunRecord, reporter: Reporter) -> None:
    """Raises FlowError when the judge failed its exam or the labels their audit, unless the config waives it.

    The exam that lets the run train is kept in the run's ledger, wherever it was taken.
    """
    config, constitution = record.config, record.constitution
    report = exam_gate(config, constitution)
    with existing_ledger(config) as ledger:
        if report is not None and ledger is not None:
            own = latest_exam(ledger, report.judge, constitution, label_settings(config))
            if own != report:
                save_exam(ledger, report)
    audit_gate(record)


def exam_gate(config: RunConfig, constitution: Constitution) -> ExamReport | None:
    """The newest exam of the judge, asked as the run asks it, under this constitution; None where there is none.

    Raises FlowError when it was failed and the config requires that it be passed, or JudgeError when the judge cannot
    say who it is.
    """
    report = _newest_exam(config, constitution)
    if report is not None and config.exam.require:
        try:
            require_passed(report)
        except JudgeError as error:
            raise FlowError(f"{error}; exam.require: false trains all the same") from error
    return report


def exam_record(record: RunRecord) -> ExamSummary | None:
    """What summary and cards say of the exam, of this attempt's own stage or else of the newest exam; None before there
    are labels and without a stage for it."""
    own = record.metrics("judge_exam")
    if own.get("taken") or "labels" not in record.outcomes:
        return ExamSummary.from_json(own) if own else None
    report = _newest_exam(record.config, record.constitution)
    if report is not None:
        return ExamSummary.from_json(exam_metrics(report))
    return ExamSummary.from_json(own) if own else ExamSummary(taken=False, reason=_NO_EXAM)


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


def _newest_exam(config: RunConfig, constitution: Constitution) -> ExamReport | None:
    """From the run's ledger and from where `charter judge exam` keeps its exams."""
    settings = label_settings(config)
    places = [ledger_of(config)]
    places += [f"sqlite:///{path.resolve()}" for path in (Path(EXAMS), config.local_runs_dir / "exams.db")]
    judge: JudgeIdentity | None = None
    found = []
    for place in dict.fromkeys(places):
        with existing(place) as ledger:
            if ledger is None or not was_any_taken(ledger, constitution, settings):
                continue
            judge = judge or make_judge(config.judge.model_dump(mode="json")).identity
            found.append(latest_exam(ledger, judge, constitution, settings))
    return max((report for report in found if report), key=lambda report: report.created_at, default=None)


def audit_gate(record: RunRecord) -> None:
    """Enough verdicts and too little agreement stop training; so do too few where they are required."""
    problem = audit_problem(record)
    if problem is not None and not record.config.audit.override:
        raise FlowError(f"{problem}; audit.override: true trains all the same")


def audit_problem(record: RunRecord) -> str | None:
    """What people's verdicts have against the labels that may train, in words; None when nothing."""
    audit, found = record.config.audit, _people(record)
    pairs = 0 if found is None else found.pairs
    if pairs < audit.min_verdicts:
        if not audit.require:
            return None
        least = f"audit.min_verdicts ({audit.min_verdicts})"
        return f"people judged {pairs} of the pairs that may train, fewer than {least}"
    assert found is not None and found.kappa is not None
    if found.kappa.value >= audit.min_kappa:
        return None
    return (
        f"people and the judge agree at kappa {found.kappa.value:.3f} < {audit.min_kappa:.3f} (audit.min_kappa) on "
        f"{pairs} pairs that may train"
    )


def audit_record(record: RunRecord) -> AuditSummary | None:
    """What the summary says of the audit; None without verdicts."""
    found = _people(record)
    if found is None or not found.pairs:
        return None
    return AuditSummary.from_json({**found.to_json(), "problem": audit_problem(record)})


def _people(record: RunRecord) -> Agreement | None:
    """Agreement over the labels of this attempt that may train; None while there are none."""
    outcome = record.outcomes.get("labels")
    if outcome is None:
        return None
    with existing_ledger(record.config) as ledger:
        if ledger is None:
            return None
        return agreement(
            ledger,
            outcome.manifest.metrics["label_set"],
            statuses=record.config.labels.statuses,
            seed=record.config.seed,
        )
