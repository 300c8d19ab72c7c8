"""The report as one HTML file and as Markdown, with its plots inside."""

from __future__ import annotations

import base64
import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from judges.exam.report import ExamReport
from judges.exam.views import PRINCIPLE_COLUMNS, PROBE_COLUMNS, figure_rows, principle_rows, probe_rows

TEMPLATE = Path(__file__).parent / "report.html.j2"


def html(report: ExamReport) -> str:
    """A page that needs nothing else; every name in it is escaped."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        report=report,
        figures=figure_rows(report),
        tables=((PRINCIPLE_COLUMNS, principle_rows(report)), (PROBE_COLUMNS, probe_rows(report))),
        plots=plots(report),
        when=datetime.fromtimestamp(report.created_at, tz=UTC).isoformat(sep=" ", timespec="seconds"),
    )


def markdown(report: ExamReport) -> str:
    """The report for a Markdown view such as a Prefect artifact; names are escaped."""
    lines = [
        f"## {'Passed' if report.passed else 'Failed'}: {_escaped(report.judge.model)} "
        f"under {_escaped(report.constitution)}",
        "",
        "| check | value | limit | |",
        "|---|---|---|---|",
    ]
    for c in report.checks:
        value = "not measured" if c.value is None else f"{c.value:.3f}"
        sign = "at least" if c.at_least else "at most"
        lines.append(
            f"| {_escaped(c.name)} | {value} | {sign} {c.limit:.3f} | {'ok' if c.passed else '**fails**'} |"
        )
    lines += ["", "| figure | value |", "|---|---|"]
    lines += [f"| {_escaped(name)} | {_escaped(value)} |" for name, value in figure_rows(report)]
    for columns, rows in (
        (PRINCIPLE_COLUMNS, principle_rows(report)),
        (PROBE_COLUMNS, probe_rows(report)),
    ):
        lines += ["", _row(columns), "|---" * len(columns) + "|", *map(_row, rows)]
    lines += ["", *(f"![{_escaped(title)}]({uri})" for title, uri in plots(report))]
    return "\n".join(lines) + "\n"


def plots(report: ExamReport) -> list[tuple[str, str]]:
    """(title, data: URI of a PNG): reliability, accuracy by principle, what the probes turned round."""
    from matplotlib.figure import Figure

    found = []
    figure = Figure(figsize=(4, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.plot([0.5, 1], [0.5, 1], color="0.7", linewidth=1)
    axes.plot([b.confidence for b in report.reliability], [b.accuracy for b in report.reliability], "o-")
    axes.set(xlim=(0.5, 1), ylim=(0, 1.02), xlabel="probability of the winner", ylabel="share right")
    found.append(("Reliability", _data_uri(figure)))
    bars = [("all", report.accuracy), *((n, p.accuracy) for n, p in report.by_principle.items())]
    found.append(("Accuracy with 95% intervals", _bars(bars)))
    probes = [(n, p.turned) for n, p in {**report.injections, **report.wishes}.items()]
    found.append(("Right decisions that a probe turned round", _bars(probes)))
    return found


def _bars(rows: list[tuple[str, Any]]) -> str:
    from matplotlib.figure import Figure

    rows = [(name, s) for name, s in rows if s.share is not None]
    figure = Figure(figsize=(5, 0.8 + 0.32 * max(1, len(rows))), layout="constrained")
    axes = figure.subplots()
    shares = [s.share for _, s in rows]
    errors = [[s.share - s.low for _, s in rows], [s.high - s.share for _, s in rows]]
    # "$" would start a formula in a label.
    names = [name.replace("$", r"\$") for name, _ in rows]
    axes.barh(names, shares, xerr=errors, color="0.75", ecolor="0.3")
    axes.set(xlim=(0, 1))
    axes.invert_yaxis()
    return _data_uri(figure)


def _data_uri(figure: Any) -> str:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(map(_escaped, cells)) + " |"


def _escaped(text: str) -> str:
    """Text in which neither Markdown nor HTML finds its syntax."""
    return "".join(c if c.isalnum() or c in " ,.%" else f"&#{ord(c)};" for c in text.replace("\n", " "))
