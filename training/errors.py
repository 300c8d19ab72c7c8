"""What can go wrong in training, each as one clear line."""

from __future__ import annotations


class TrainingError(ValueError):
    """The user's mistake: a config, a file, a model or labels that cannot be trained on."""


class Diverged(TrainingError):
    """A number is not finite, or the loss or the policy ran away; the batch was saved beside the metrics."""


class Interrupted(Exception):
    """A signal asked the run to stop; a checkpoint was written. `signum` is the signal's number."""

    def __init__(self, signum: int, step: int) -> None:
        super().__init__(f"stopped by signal {signum} after step {step}; start again with --resume")
        self.signum = signum
        self.step = step

    @property
    def exit_code(self) -> int:
        """The shell's convention: 143 for SIGTERM."""
        return 128 + self.signum
