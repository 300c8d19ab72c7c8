"""What must hold before anything is trained on labels: the judge's exam, and what people say of its labels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.errors import FlowError
from flows.labelling.judge import label_settings, make_judge
from judges import JudgeError, JudgeIdentity, Ledger
from judges.audit import Agreement, agreement, verdicts_digest
from judges.exam import ExamReport, latest_exam, require_passed, save_exam, was_any_taken

EXAMS = "runs/exams.db"
"""Where exams are kept that belong to no run, from the working directory."""
_NO_EXAM = "the configuration names no exam.pairs, and nobody took an exam that asks as this run does"

if TYPE_CHECKING:
    from constitution import Constitution
    from flows.config import RunConfig
    from flows.pipeline.session import Session


def ledger_of(config: RunConfig) -> str:
    """The URL of the run's ledger."""
    return config.labels.ledger or f"sqlite:///{config.run_directory / 'ledger.db'}"


@contextmanager
def existing_ledger(config: RunConfig) -> Iterator[Ledger | None]:
    """The run's ledger, or None where there is none yet; looking makes none."""
    with _existing(ledger_of(config)) as ledger:
        yield ledger


def people_said(config: RunConfig) -> str | None:
    """The digest of people's verdicts in the run's ledger; None without any."""
    with existing_ledger(config) as ledger:
        return None if ledger is None else verdicts_digest(ledger)


def labelling_gate(session: Session) -> None:
    """Raises FlowError when the judge failed its exam and the config requires one; without any, says so in one line."""
    report = exam_gate(session.config, session.constitution)
    if report is None and session.config.exam.require:
        path = session.run.history(session.attempt) / "config.yaml"
        session.reporter.warned(
            f"the judge was not examined: {_NO_EXAM}; charter judge exam --config {path} --pairs FILE takes one"
        )


def training_gate(session: Session) -> None:
    """Raises FlowError when the judge failed its exam or the labels their audit, unless the config waives it.

    The exam that lets the run train is kept in the run's ledger, wherever it was taken.
    """
    config, constitution = session.config, session.constitution
    report = exam_gate(config, constitution)
    with existing_ledger(config) as ledger:
        if report is not None and ledger is not None:
            own = latest_exam(ledger, report.judge, constitution, label_settings(config))
            if own != report:
                save_exam(ledger, report)
    audit_gate(session)


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


def exam_record(session: Session) -> dict[str, Any]:
    """What summary and cards say of the exam; empty before there are labels and without a stage for it.

    `{"taken": False, "reason"}`, or the fields of `exam_metrics`: of this attempt's own stage, else of the newest exam.
    """
    outcome = session.outcomes.get("judge_exam")
    own: dict[str, Any] = dict(outcome.manifest.metrics) if outcome else {}
    if own.get("taken") or "labels" not in session.outcomes:
        return own
    report = _newest_exam(session.config, session.constitution)
    if report is not None:
        return exam_metrics(report)
    return own or {"taken": False, "reason": _NO_EXAM}


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
        with _existing(place) as ledger:
            if ledger is None or not was_any_taken(ledger, constitution, settings):
                continue
            judge = judge or make_judge(config.judge.model_dump(mode="json")).identity
            found.append(latest_exam(ledger, judge, constitution, settings))
    return max((report for report in found if report), key=lambda report: report.created_at, default=None)


@contextmanager
def _existing(url: str) -> Iterator[Ledger | None]:
    if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).is_file():
        yield None
        return
    with Ledger.open(url) as ledger:
        yield ledger


def audit_gate(session: Session) -> None:
    """Enough verdicts and too little agreement stop training; so do too few where they are required."""
    problem = audit_problem(session)
    if problem is not None and not session.config.audit.override:
        raise FlowError(f"{problem}; audit.override: true trains all the same")


def audit_problem(session: Session) -> str | None:
    """What people's verdicts have against the labels that may train, in words; None when nothing."""
    audit, found = session.config.audit, _people(session)
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


def audit_record(session: Session) -> dict[str, Any]:
    """What the summary says of the audit; empty without verdicts."""
    found = _people(session)
    if found is None or not found.pairs:
        return {}
    return {**found.to_json(), "problem": audit_problem(session)}


def _people(session: Session) -> Agreement | None:
    """Agreement over the labels of this attempt that may train; None while there are none."""
    outcome = session.outcomes.get("labels")
    if outcome is None:
        return None
    with existing_ledger(session.config) as ledger:
        if ledger is None:
            return None
        return agreement(
            ledger,
            outcome.manifest.metrics["label_set"],
            statuses=session.config.labels.statuses,
            seed=session.config.seed,
        )
