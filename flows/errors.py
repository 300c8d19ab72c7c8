"""What can go wrong in a run, each as one clear line."""

from __future__ import annotations


class FlowError(ValueError):
    """The user's mistake, or a stage that failed: one line that says what and where."""


class StageFailed(FlowError):
    """A stage's process ended badly; the line names its log."""


class TooFewLabels(FlowError):
    """Fewer labels may train than the configuration asks for."""


class RunBusy(FlowError):
    """Another process works in the run directory."""


def is_ours(error: BaseException) -> bool:
    """Whether an error is a message to the user rather than a bug: each room has its own kind of ValueError."""
    from common.errors import DataError
    from constitution import ConstitutionError
    from engines import EngineError
    from judges import JudgeError
    from training import TrainingError

    return isinstance(
        error, (DataError, FlowError, ConstitutionError, EngineError, JudgeError, TrainingError)
    )
