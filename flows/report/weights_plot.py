"""The plot of where the weights moved: change by layer, a line for each training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from flows.report.figures import STAGE_COLOURS, axes_of
from flows.report.weights import WHOLE, Steps, percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Beyond such a ratio of the largest to the smallest change a linear axis hides the small ones.
_LOGARITHMIC = 30


def weights_figure(steps: Steps, names: Mapping[str, str]) -> tuple[str, Callable[[str], Figure]] | None:
    """(alternative text, function from ink colour to figure); None where no layer's movement was measured."""
    drawn = [step for step in steps if (step["from"], step["to"]) != WHOLE and _points(step)[0]]
    if not drawn:
        return None
    ends = [
        f"{names[step['to']]} {percent(step['layers'][0]['all'])}% in the first and "
        f"{percent(step['layers'][-1]['all'])}% in the last"
        for step in drawn
    ]
    text = f"Relative change of the weights by layer: {'; '.join(ends)}."
    return text, lambda ink: _draw(drawn, names, ink)


def _points(step: Mapping[str, Any]) -> tuple[list[int], list[float]]:
    """(numbers from 1, changes in %) of the layers that were measured."""
    layers = [one for one in step.get("layers", ()) if one["all"] is not None]
    return [one["layer"] + 1 for one in layers], [100 * one["all"] for one in layers]


def _draw(steps: Steps, names: Mapping[str, str], ink: str) -> Figure:
    from matplotlib.ticker import MaxNLocator

    figure, (axes,) = axes_of(ink, width=6.4)
    changes: list[float] = []
    for step in steps:
        numbers, moved = _points(step)
        label = f"{names[step['from']]} → {names[step['to']]}"
        axes.plot(numbers, moved, color=STAGE_COLOURS[step["to"]], marker="o", markersize=4, label=label)
        changes += [change for change in moved if change]
    if changes and max(changes) > _LOGARITHMIC * min(changes):
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("layer, the first reads the input")
    axes.set_ylabel("change of the weights (%)")
    axes.set_title("Where the weights moved", fontsize=11, loc="left")
    axes.legend(frameon=False, labelcolor=ink, fontsize=9)
    return figure
