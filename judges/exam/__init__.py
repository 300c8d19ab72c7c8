"""The exam that a judge takes before it is trusted, and its report."""

from judges.exam.examine import examine
from judges.exam.report import Check, ExamReport, ProbeResult, text
from judges.exam.settings import ExamSettings
from judges.exam.store import latest_exam, require_exam, save_exam, was_any_taken

__all__ = [
    "Check",
    "ExamReport",
    "ExamSettings",
    "ProbeResult",
    "examine",
    "latest_exam",
    "require_exam",
    "save_exam",
    "text",
    "was_any_taken",
]
