"""What must hold before anything is trained on labels: the judge's exam, and what people say of its labels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.errors import FlowError
from flows.judging import make_judge
from judges import JudgeError, Ledger
from judges.audit import Agreement, agreement, verdicts_digest
from judges.exam import latest_exam, require_exam, was_any_taken

if TYPE_CHECKING:
    from constitution import Constitution
    from flows.config import RunConfig
    from flows.session import Session


def ledger_of(config: RunConfig) -> str:
    """The URL of the run's ledger."""
    return config.labels.ledger or f"sqlite:///{config.run_directory / 'ledger.db'}"


@contextmanager
def existing_ledger(config: RunConfig) -> Iterator[Ledger | None]:
    """The run's ledger, or None where there is none yet; looking makes none."""
    url = ledger_of(config)
    if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).is_file():
        yield None
        return
    with Ledger.open(url) as ledger:
        yield ledger


def people_said(config: RunConfig) -> str | None:
    """The digest of people's verdicts in the run's ledger; None without any."""
    with existing_ledger(config) as ledger:
        return None if ledger is None else verdicts_digest(ledger)


def training_gate(session: Session) -> None:
    """Raises FlowError when the judge failed its exam or the labels their audit, unless the config waives it."""
    exam_gate(session.config, session.constitution)
    audit_gate(session)


def exam_gate(config: RunConfig, constitution: Constitution) -> None:
    """The newest exam of this judge under this constitution in the run's ledger must be passed, where there is one.

    Raises FlowError, or JudgeError when the judge cannot say who it is.
    """
    if not config.exam.require:
        return
    with existing_ledger(config) as ledger:
        if ledger is None or not was_any_taken(ledger):
            return
        judge = make_judge(config.judge.model_dump(mode="json")).identity
        if latest_exam(ledger, judge, constitution) is None:
            return
        try:
            require_exam(ledger, judge, constitution)
        except JudgeError as error:
            raise FlowError(f"{error}; exam.require: false trains all the same") from error


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
    return {**asdict(found), "problem": audit_problem(session)}


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
