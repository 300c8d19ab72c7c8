"""Where the weights of a run moved: by which step and in which layer, as a table, a sentence and a plot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Self

from common.record import ABSENT, Key, Record, plain
from common.sections import Plot, Section
from common.statistics import RankCorrelation
from flows.evaluation.movement import Layer, Movement
from flows.report.drawing import STAGE_COLOURS, axes_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WHOLE = ("base", "rl_cai")
"""The step that is no training but all of them."""
_KINDS = {
    "attention": "attention %",
    "mlp": "MLP %",
    "norms": "norms %",
    "embeddings": "embeddings %",
    "other": "other %",
}
_LEVEL = 0.05
# Beyond such a ratio of the largest to the smallest change a linear axis hides the small ones.
_LOGARITHMIC = 30
_TEXT = (
    "The size of the change over the size of the weights before (Frobenius norms), in %. Depth: the rank correlation "
    "of a layer's number with its change, positive where later layers move more, and its p-value."
)


@dataclass(frozen=True, kw_only=True)
class WeightStep(Record):
    """From which role's model to which, and how far it moved, or the problem why that is not known."""

    start: Annotated[str, Key("from")]
    end: Annotated[str, Key("to")]
    problem: Annotated[str | None, ABSENT] = None
    moved: Movement | None = None

    @property
    def trained(self) -> bool:
        """Whether this is one training."""
        return (self.start, self.end) != _WHOLE

    @property
    def layers(self) -> list[tuple[int, float]]:
        """(number from 1, relative change) of the layers that were measured."""
        layers = self.moved.layers if self.moved else ()
        return [(one.layer + 1, one.all) for one in layers if one.all is not None]

    def to_json(self) -> dict[str, Any]:
        """The movement's figures stand beside the roles."""
        data = super().to_json()
        return data | (plain(data.pop("moved")) or {})

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """See `to_json`."""
        moved = None if "problem" in data else Movement.from_json(data)
        return cls(start=data["from"], end=data["to"], problem=data.get("problem"), moved=moved)


Steps = Sequence[WeightStep]


def weight_section(steps: Steps, names: Mapping[str, str]) -> Section:
    """One row a step: the change of all weights, by kind, of the first and the last layer.

    `names` are the names of the models that people read.
    """
    measured = [(step, step.moved) for step in steps if step.moved and step.moved.layers]
    kinds = [kind for kind in _KINDS if any(kind in moved.kinds for _, moved in measured)]
    rows = [["from, to", "all %", *(_KINDS[k] for k in kinds), "first layer %", "last layer %", "depth"]]
    for step, moved in measured:
        by_kind = (percent(moved.kinds.get(kind)) for kind in kinds)
        ends = (percent(moved.layers[place].all) for place in (0, -1))
        heading = f"{names[step.start]} → {names[step.end]}"
        rows.append([heading, percent(moved.total), *by_kind, *ends, _depth(moved.depth)])
    return Section(heading="Where the weights moved", text=_TEXT, rows=rows)


def weight_sentences(steps: Steps, names: Mapping[str, str]) -> list[str]:
    """Whether the later layers move most, training by training; and what could not be measured."""
    found = []
    trained = [step for step in steps if step.trained]
    said = [
        f"{names[step.end]}: {_verdict(step.moved.layers, step.moved.depth)}"
        for step in trained
        if step.moved and step.moved.layers
    ]
    if said:
        found.append(f"Do the later layers move most? {'; '.join(said)}.")
    for step in trained:
        between = f"from {names[step.start]} to {names[step.end]}"
        if step.problem:
            found.append(f"Where the weights moved {between} is not measured: {step.problem}.")
        elif step.moved and step.moved.left_out.n:
            left_out = step.moved.left_out
            found.append(f"{left_out.n} tensors {between} are not measured ({left_out.first[0]}).")
    return found


def weight_plot(steps: Steps, names: Mapping[str, str]) -> Plot | None:
    """Change by layer, a line for each training; None where no layer's movement was measured."""
    drawn = [step for step in steps if step.trained and step.layers]
    if not drawn:
        return None
    ends = [
        f"{names[step.end]} {percent(step.layers[0][1])}% in the first and {percent(step.layers[-1][1])}% in the last"
        for step in drawn
    ]
    text = f"Relative change of the weights by layer: {'; '.join(ends)}."
    return Plot(text=text, draw=lambda ink: _draw(drawn, names, ink))


def percent(value: float | None) -> str:
    """A share in per cent with three digits, "-" for none."""
    return "-" if value is None else f"{100 * value:.3g}"


def _verdict(layers: Sequence[Layer], depth: RankCorrelation) -> str:
    """Yes, no, or why it cannot be told, for one step."""
    known = [(one.all, one.layer + 1) for one in layers if one.all is not None]
    if not known or depth.value is None or depth.p is None:
        return f"no order among {len(known)} layers"
    if 2 / math.factorial(depth.n) >= _LEVEL:
        answer = "too few layers to tell"
    elif depth.p >= _LEVEL:
        answer = "no clear order"
    else:
        answer = "yes" if depth.value > 0 else "no, the earlier ones do"
    change, number = max(known, key=lambda one: one[0])
    place = f"most in layer {number} of {depth.n}, {percent(change)}%"
    return f"{answer} (rank correlation {_depth(depth)}; {place})"


def _depth(depth: RankCorrelation) -> str:
    """ "+0.93, p 0.001", or "-" where there is none."""
    if depth.value is None or depth.p is None:
        return "-"
    p = "p <0.001" if depth.p < 0.001 else f"p {depth.p:.2g}"
    return f"{depth.value:+.2f}, {p}"


def _draw(steps: Steps, names: Mapping[str, str], ink: str) -> Figure:
    from matplotlib.ticker import MaxNLocator

    figure, (axes,) = axes_of(ink, width=6.4)
    changes: list[float] = []
    for step in steps:
        numbers, moved = [n for n, _ in step.layers], [100 * change for _, change in step.layers]
        label = f"{names[step.start]} → {names[step.end]}"
        axes.plot(numbers, moved, color=STAGE_COLOURS[step.end], marker="o", markersize=4, label=label)
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
