"""The result of an exam: its figures and whether it passed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from judges.exam.figures import SHARES, Figures
from judges.exam.measures import Bin, Share
from judges.records import JudgeIdentity


@dataclass(frozen=True, kw_only=True)
class Check:
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
class ProbeResult:
    """What a probe did to decisions that were right: turned round, made undecided, p moved to the worse.

    `truncated` are those of the undecided whose text was too long for the judge.
    """

    turned: Share
    undecided: Share
    truncated: Share
    shift: float | None


@dataclass(frozen=True, kw_only=True)
class ExamReport(Figures):
    """Everything that an exam measured. Times are seconds since 1970, UTC; `way` is a digest of how it was asked."""

    judge: JudgeIdentity
    constitution: str
    comparison_digest: str
    way: str
    settings: Mapping[str, Any]
    source: str
    created_at: float
    statuses: Mapping[str, int]
    failures: Share
    first_slot: float | None
    reliability: tuple[Bin, ...]
    calibration_error: float | None
    kappa: float
    alpha: float | None
    by_principle: Mapping[str, Figures]
    injections: Mapping[str, ProbeResult]
    wishes: Mapping[str, ProbeResult]
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
        """Plain data; `from_json` takes it back."""
        return {**asdict(self), "passed": self.passed}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """A report from what `to_json` gave."""

        def probes(found: Mapping[str, Any]) -> dict[str, ProbeResult]:
            return {
                name: ProbeResult(
                    shift=p["shift"], **{x: Share(**p[x]) for x in ("turned", "undecided", "truncated")}
                )
                for name, p in found.items()
            }

        def shares(found: Mapping[str, Any]) -> dict[str, Share]:
            return {name: Share(**found[name]) for name in SHARES}

        plain = {k: v for k, v in data.items() if k != "passed"}
        return cls(
            **{
                **plain,
                **shares(data),
                "failures": Share(**data["failures"]),
                "judge": JudgeIdentity(**data["judge"]),
                "reliability": tuple(Bin(**b) for b in data["reliability"]),
                "by_principle": {
                    name: Figures(pairs=p["pairs"], **shares(p)) for name, p in data["by_principle"].items()
                },
                "injections": probes(data["injections"]),
                "wishes": probes(data["wishes"]),
                "checks": tuple(Check(**c) for c in data["checks"]),
            }
        )
