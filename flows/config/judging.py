"""The sections of what watches over the labels: the judge's exam, and people's audit."""

from __future__ import annotations

from pydantic import Field

from flows.config.fields import ConfigPath, knobs
from judges.audit.settings import AuditSettings
from judges.exam.settings import ExamSettings

EXAMS = "runs/exams.db"
"""Where exams are kept that belong to no run, from the working directory."""


class ExamSection(knobs(ExamSettings, filled={})):  # type: ignore[misc]
    """The judge's exam, before anything is labelled; without `pairs` there is one in the microworld only."""

    pairs: tuple[ConfigPath, ...] = ()
    """Files of pairs with known answers, in any of the usual formats."""

    generated: int = Field(default=80, ge=20, le=10_000)
    """Pairs on held-out topics that the microworld makes where no files are named."""

    require: bool = True
    """Stop when the judge fails; false goes on with a warning in the report."""


class AuditSection(knobs(AuditSettings, filled={})):  # type: ignore[misc]
    """People's verdicts on the labels, and what training makes of them."""
