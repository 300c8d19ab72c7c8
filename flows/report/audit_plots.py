"""The audit's plots: how sure the judge is, and how often a principle's two orders disagree."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from common.text import printable
from flows.report.figures import PROXY, png_uri
from flows.report.markdown import escape
from judges.audit import AuditReport
from judges.audit.report import BINS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plots(report: AuditReport) -> list[str]:
    """The plots as images of Markdown."""
    overall = report.overall

    def margins(ink: str) -> Figure:
        figure, axes = _axes(ink)
        axes.bar([(i + 0.5) / BINS for i in range(BINS)], overall.margins, width=0.9 / BINS, color=PROXY)
        axes.set_xlabel("margin: 2 |p - 1/2|")
        axes.set_ylabel("labels")
        return figure

    names = list(report.by_principle)[:20]

    def flips(ink: str) -> Figure:
        figure, axes = _axes(ink, height=0.8 + 0.28 * len(names))
        shares = [report.by_principle[name].flips for name in names]
        errors = [
            [(s.share or 0) - s.low if s.of else 0 for s in shares],
            [s.high - (s.share or 0) if s.of else 0 for s in shares],
        ]
        # "$" would start a formula in a label.
        labels = [printable(name)[:30].replace("$", r"\$") for name in names]
        axes.barh(range(len(names)), [s.share or 0 for s in shares], xerr=errors, color=PROXY, ecolor=ink)
        axes.set_yticks(range(len(names)), labels)
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.set_xlabel("flips with the order, 95% interval")
        return figure

    return [
        _image("How sure the judge is", margins),
        *([_image("Flips by principle", flips)] if names else []),
    ]


def _image(text: str, draw: Callable[[str], Figure]) -> str:
    return f"![{escape(text)}]({png_uri(draw)})"


def _axes(ink: str, *, height: float = 2.6) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.4, height), layout="constrained")
    axes = figure.add_subplot()
    axes.tick_params(colors=ink, labelsize=8)
    for spine in ("top", "right"):
        axes.spines[spine].set_visible(False)
    return figure, axes
