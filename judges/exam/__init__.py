"""The exam that a judge takes before it is trusted, and its report."""

from judges.exam.examine import examine
from judges.exam.report import Check, ExamReport, ProbeResult
from judges.exam.settings import ExamSettings
from judges.exam.store import (
    exam_of_labels,
    latest_exam,
    require_exam,
    require_passed,
    save_exam,
    was_any_taken,
)

__all__ = [
    "Check",
    "ExamReport",
    "ExamSettings",
    "ProbeResult",
    "exam_of_labels",
    "examine",
    "latest_exam",
    "require_exam",
    "require_passed",
    "save_exam",
    "was_any_taken",
]
