"""The plot of what the labels cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from flows.report.costs import Costs, cost_sentences, money, tokens
from flows.report.figures import GOLD, LENGTH, PROXY, axes_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def cost_figure(costs: Costs) -> tuple[str, Callable[[str], Figure]] | None:
    """(alternative text, function from ink colour to figure): tokens, seconds, and money with both prices."""
    if not costs:
        return None
    return " ".join(cost_sentences(costs)), lambda ink: _draw(costs, ink)


def _draw(costs: Costs, ink: str) -> Figure:
    judge, attempt, paid = costs["judge"], costs["attempt"], costs.get("money", {})
    priced = "judge" in paid and "people" in paid
    figure, panels = axes_of(ink, rows=3 if priced else 2, width=6.4, height=3.9 if priced else 2.8)
    both = ("all labels", "this attempt")
    _bars(panels[0], ink, "tokens", both, (tokens(judge), tokens(attempt)), PROXY)
    _bars(panels[1], ink, "seconds of the judge", both, (judge["seconds"], attempt["seconds"]), LENGTH)
    if priced:
        shown = (paid["judge"], paid["people"])
        _bars(panels[2], ink, "money at the stated prices", ("judge", "people"), shown, GOLD, text=money)
    return figure


def _bars(
    axes: Axes,
    ink: str,
    title: str,
    names: tuple[str, str],
    values: tuple[float, float],
    colour: str,
    text: Callable[[float], str] = lambda value: f"{value:,.0f}",
) -> None:
    bars = axes.barh(names, values, color=colour, height=0.62)
    axes.bar_label(bars, labels=[text(value) for value in values], padding=4, color=ink, fontsize=9)
    axes.set_title(title, fontsize=10, loc="left")
    axes.invert_yaxis()
    axes.grid(False)
    axes.set_xticks([])
    axes.set_xlim(0, 1.25 * max(*values, 1e-9))
    axes.spines["bottom"].set_visible(False)
