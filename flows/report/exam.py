"""The report of a judge's exam."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from common.sections import Cell, Measure, Page, Plot, Rows, Section, percent
from common.statistics import Share
from flows.report.drawing import LENGTH, PROXY, axes_of, share_bars
from judges.exam import ExamReport


def exam_page(report: ExamReport) -> Page:
    """Passed or failed, the checks, the figures, by principle, what the probes did, and plots."""
    judge, when = report.judge, datetime.fromtimestamp(report.created_at, tz=UTC)
    return Page(
        title=f"{'Passed' if report.passed else 'Failed'}: {judge.model} under {report.constitution}",
        about=f"{judge.kind}, revision {judge.revision[:16]}, {judge.build}; {when:%Y-%m-%d %H:%M:%S} UTC",
        findings=[f"Fails: {problem}." for problem in report.problems],
        sections=[
            Section(heading="Checks", rows=_checks(report)),
            Section(heading="Figures", rows=_figures(report), kind="words", figures=_plots(report)),
            Section(
                heading="Principle by principle",
                text="The same judgements, read under one principle alone. Shares in % with 95% intervals.",
                rows=_principles(report),
            ),
            Section(
                heading="Probes",
                text=f"What a text that should move nobody did to {_probed(report)} decisions that were right: in the "
                "worse response, or in the user's turn. Shares in % with 95% intervals.",
                rows=_probes(report),
            ),
        ],
    )


def _share(share: Share) -> Measure:
    return Measure(share, percent=True)


def _probed(report: ExamReport) -> int:
    return max((p.turned.n for p in report.injections.values()), default=0)


def _number(value: float | None, *, sign: bool = False) -> Measure:
    return Measure(value, digits=3, sign=sign)


def _checks(report: ExamReport) -> Rows:
    rows: list[list[Cell]] = [["check", "value", "limit", ""]]
    for c in report.checks:
        value: Cell = "not measured" if c.value is None else _number(c.value)
        limit = f"{'at least' if c.at_least else 'at most'} {c.limit:.3f}"
        rows.append([c.name, value, limit, "ok" if c.passed else "FAILS"])
    return rows


def _figures(report: ExamReport) -> Rows:
    statuses = ", ".join(f"{n:,} {status}" for status, n in sorted(report.statuses.items()))
    return [
        ["figure", "value"],
        ["pairs", f"{report.pairs:,} from {report.source}"],
        ["statuses", statuses],
        ["decided", percent(report.decided)],
        ["accuracy", percent(report.accuracy)],
        ["always A", percent(report.always_a)],
        ["always the longer", percent(report.always_longer)],
        ["flips with the order", percent(report.flips)],
        ["position bias", _number(report.position_bias, sign=True)],
        ["chose the longer", percent(report.chose_longer)],
        ["the longer was right", percent(report.longer_is_right)],
        ["calibration error", _number(report.calibration_error)],
        ["Cohen's kappa with the known answers", _number(report.kappa)],
        ["Krippendorff's alpha, both orders and known", _number(report.alpha)],
    ]


def _principles(report: ExamReport) -> Rows:
    headings = [
        "principle",
        "pairs",
        "decided",
        "accuracy",
        "always A",
        "always the longer",
        "flips",
        "length bias",
    ]
    rows: list[list[Cell]] = [[*headings]]
    for name, p in report.by_principle.items():
        shares = (p.decided, p.accuracy, p.always_a, p.always_longer, p.flips)
        rows.append([name, p.pairs, *map(_share, shares), _number(p.length_bias, sign=True)])
    return rows


def _probes(report: ExamReport) -> Rows:
    rows: list[list[Cell]] = [
        ["probe", "turned round", "made undecided", "of these too long", "p moved to the worse"]
    ]
    for name, p in {**report.injections, **report.sycophancy}.items():
        shares = map(_share, (p.turned, p.undecided, p.truncated))
        rows.append([name, *shares, _number(p.shift, sign=True)])
    return rows


def _plots(report: ExamReport) -> list[Plot]:
    """Reliability, accuracy by principle, what the probes turned round."""
    accuracies = {"all": report.accuracy, **{name: p.accuracy for name, p in report.by_principle.items()}}
    turned = {name: p.turned for name, p in {**report.injections, **report.sycophancy}.items()}

    def reliability(ink: str) -> Any:
        figure, (axes,) = axes_of(ink, width=6.4)
        axes.plot([0.5, 1], [0.5, 1], color=LENGTH, linewidth=1)
        confidence = [b.confidence for b in report.reliability]
        axes.plot(confidence, [b.accuracy for b in report.reliability], "o-", color=PROXY)
        axes.set(xlim=(0.5, 1), ylim=(0, 1.02), xlabel="probability of the winner", ylabel="share right")
        return figure

    return [
        Plot(text="Reliability: how often the judge was right, by how sure it was", draw=reliability),
        Plot(
            text="Accuracy with 95% intervals",
            draw=lambda ink: share_bars(accuracies, ink, label="share right"),
        ),
        Plot(
            text="Right decisions that a probe turned round",
            draw=lambda ink: share_bars(turned, ink, label="share turned round"),
        ),
    ]
