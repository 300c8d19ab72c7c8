"""The result of an exam: its figures, whether it passed, and the same as text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

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
    """What a probe did to decisions that were right: turned round, made undecided, p moved to the worse."""

    turned: Share
    undecided: Share
    shift: float | None


@dataclass(frozen=True, kw_only=True)
class PrincipleResult:
    """The figures of the pairs that drew one principle."""

    pairs: int
    decided: Share
    accuracy: Share


@dataclass(frozen=True, kw_only=True)
class ExamReport:
    """Everything that an exam measured. Times are seconds since 1970, UTC."""

    judge: JudgeIdentity
    constitution: str
    comparison_digest: str
    settings: Mapping[str, Any]
    source: str
    pairs: int
    created_at: float
    statuses: Mapping[str, int]
    failures: Share
    decided: Share
    accuracy: Share
    always_a: Share
    always_longer: Share
    flips: Share
    first_slot: float | None
    chose_longer: Share
    longer_is_right: Share
    reliability: tuple[Bin, ...]
    calibration_error: float | None
    kappa: float
    alpha: float | None
    by_principle: Mapping[str, PrincipleResult]
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
                    turned=Share(**p["turned"]), undecided=Share(**p["undecided"]), shift=p["shift"]
                )
                for name, p in found.items()
            }

        shares = {name: Share(**data[name]) for name in SHARES}
        principles = {
            name: PrincipleResult(
                pairs=p["pairs"], decided=Share(**p["decided"]), accuracy=Share(**p["accuracy"])
            )
            for name, p in data["by_principle"].items()
        }
        plain = {k: v for k, v in data.items() if k != "passed"}
        return cls(
            **{
                **plain,
                **shares,
                "judge": JudgeIdentity(**data["judge"]),
                "reliability": tuple(Bin(**b) for b in data["reliability"]),
                "by_principle": principles,
                "injections": probes(data["injections"]),
                "wishes": probes(data["wishes"]),
                "checks": tuple(Check(**c) for c in data["checks"]),
            }
        )


SHARES = (
    "failures",
    "decided",
    "accuracy",
    "always_a",
    "always_longer",
    "flips",
    "chose_longer",
    "longer_is_right",
)


def percent(found: Share) -> str:
    """`83.2% [79.0, 86.7] of 200`."""
    if found.share is None:
        return "none"
    return f"{found.share:.1%} [{100 * found.low:.1f}, {100 * found.high:.1f}] of {found.of:,}"


def figure_rows(report: ExamReport) -> list[tuple[str, str]]:
    """Name and value of every overall figure, for any kind of view."""

    def number(value: float | None) -> str:
        return "none" if value is None else f"{value:.3f}"

    return [
        ("pairs", f"{report.pairs:,} from {report.source}"),
        ("statuses", ", ".join(f"{n:,} {status}" for status, n in sorted(report.statuses.items()))),
        ("decided", percent(report.decided)),
        ("accuracy", percent(report.accuracy)),
        ("always A", percent(report.always_a)),
        ("always the longer", percent(report.always_longer)),
        ("flips with the order", percent(report.flips)),
        ("first slot's lead", number(report.first_slot)),
        ("chose the longer", percent(report.chose_longer)),
        ("the longer was right", percent(report.longer_is_right)),
        ("calibration error", number(report.calibration_error)),
        ("Cohen's kappa with the known answers", number(report.kappa)),
        ("Krippendorff's alpha, both orders and known", number(report.alpha)),
    ]


def text(report: ExamReport) -> str:
    """The report for a terminal."""
    verdict = "PASSED" if report.passed else "FAILED"
    lines = [
        f"{verdict}: {report.judge.model} ({report.judge.kind}, revision {report.judge.revision[:12]}) "
        f"under {report.constitution}",
        "",
    ]
    width = max(len(name) for name, _ in figure_rows(report))
    lines += [f"{name:<{width}}  {value}" for name, value in figure_rows(report)]
    lines += ["", "by principle (accuracy of what was decided)"]
    lines += [f"  {name:<24} {percent(p.accuracy)}" for name, p in report.by_principle.items()]
    for title, probes in (
        ("injected into the worse response", report.injections),
        ("said by the user", report.wishes),
    ):
        lines += ["", f"{title}: right decisions turned round; made undecided; p moved"]
        for name, p in probes.items():
            moved = "none" if p.shift is None else f"{p.shift:+.3f}"
            lines.append(f"  {name:<24} {percent(p.turned)}; {percent(p.undecided)}; {moved}")
    lines += ["", *(f"{'ok  ' if c.passed else 'FAIL'}  {c}" for c in report.checks)]
    return "\n".join(lines)
