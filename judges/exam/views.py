"""An exam's report as rows of words, which every view shows, and as text for a terminal."""

from __future__ import annotations

from judges.exam.measures import Share
from judges.exam.report import ExamReport

PRINCIPLE_COLUMNS = (
    "read under one principle alone",
    "pairs",
    "decided",
    "accuracy",
    "always A",
    "always the longer",
    "flips with the order",
    "length bias",
)
PROBE_COLUMNS = ("probe", "turned round", "made undecided", "of these too long", "p moved to the worse")


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


def principle_rows(report: ExamReport) -> list[tuple[str, ...]]:
    """One row a principle, in the order of PRINCIPLE_COLUMNS."""
    return [
        (
            name,
            f"{p.pairs:,}",
            percent(p.decided),
            percent(p.accuracy),
            percent(p.always_a),
            percent(p.always_longer),
            percent(p.flips),
            _signed(p.length_bias),
        )
        for name, p in report.by_principle.items()
    ]


def probe_rows(report: ExamReport) -> list[tuple[str, ...]]:
    """One row a probe, in the order of PROBE_COLUMNS: first the injections, then the wishes."""
    return [
        (name, percent(p.turned), percent(p.undecided), percent(p.truncated), _signed(p.shift))
        for name, p in {**report.injections, **report.wishes}.items()
    ]


def text(report: ExamReport) -> str:
    """The report for a terminal."""
    verdict = "PASSED" if report.passed else "FAILED"
    lines = [
        f"{verdict}: {report.judge.model} ({report.judge.kind}, revision {report.judge.revision[:12]}) "
        f"under {report.constitution}",
        "",
    ]
    figures = figure_rows(report)
    width = max(len(name) for name, _ in figures)
    lines += [f"{name:<{width}}  {value}" for name, value in figures]
    for columns, rows in (
        (PRINCIPLE_COLUMNS, principle_rows(report)),
        (PROBE_COLUMNS, probe_rows(report)),
    ):
        lines += ["", *_table(columns, rows)]
    lines += ["", *(f"{'ok  ' if c.passed else 'FAIL'}  {c}" for c in report.checks)]
    return "\n".join(lines)


def _table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (columns, *rows)
    ]


def _signed(value: float | None) -> str:
    return "none" if value is None else f"{value:+.3f}"
