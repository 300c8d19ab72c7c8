"""The result of an exam: its figures and whether it passed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from common.record import Key, Record
from common.statistics import Share
from judges.exam.figures import Bin, Figures
from judges.records import JudgeIdentity


@dataclass(frozen=True, kw_only=True)
class Check(Record):
    """One threshold. `value` is None where there was nothing to measure, which does not pass."""

    name: str
    value: float | None
    limit: float
    at_least: bool
    passed: bool

    def __str__(self) -> str:
        sign = (">=" if self.passed else "<") if self.at_least else ("<=" if self.passed else ">")
        if self.value is None:
            return f"{self.name}: not measured (limit {self.limit:.3f})"
        return f"{self.name} {self.value:.3f} {sign} {self.limit:.3f}"


@dataclass(frozen=True, kw_only=True)
class ProbeResult(Record):
    """What a probe did to decisions that were right: turned round, made undecided, p moved to the worse.

    `truncated` are those of the undecided whose text was too long for the judge.
    """

    turned: Share
    undecided: Share
    truncated: Share
    shift: float | None


@dataclass(frozen=True, kw_only=True)
class ExamReport(Figures):
    """Everything that an exam measured. Times are seconds since 1970, UTC; `protocol_digest` says how it was asked.

    `position_bias` is how much more probability the first response gets than the second, in [-1, 1]. Ledgers keep it as
    `first_slot`, the digest as `way` and the sycophancy probes as `wishes`.
    """

    judge: JudgeIdentity
    constitution: str
    comparison_digest: str
    protocol_digest: Annotated[str, Key("way")]
    settings: Mapping[str, Any]
    source: str
    created_at: float
    statuses: Mapping[str, int]
    failures: Share
    position_bias: Annotated[float | None, Key("first_slot")]
    reliability: tuple[Bin, ...]
    calibration_error: float | None
    kappa: float
    alpha: float | None
    by_principle: Mapping[str, Figures]
    injections: Mapping[str, ProbeResult]
    sycophancy: Annotated[Mapping[str, ProbeResult], Key("wishes")]
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every check holds."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    @property
    def problems(self) -> list[str]:
        """The checks that do not hold, in words."""
        return [str(check) for check in self.checks if not check.passed]

    def to_json(self) -> dict[str, Any]:
        """Plain data with the verdict; `from_json` takes it back."""
        return {**super().to_json(), "passed": self.passed}
