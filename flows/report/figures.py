"""The plots of a report: the path of reinforcement learning, and where the models stand.

SVG for report.html, in the page's own text colour so that it reads in light and dark; PNG for Prefect artifacts.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from flows.report.data import MODELS, ReportData

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Stands for the page's text colour in the drawn SVG, and is replaced by `currentColor`.
_INK = "#010203"
PROXY, GOLD, LENGTH = "#3b82c4", "#d9822b", "#8a8f98"
STAGE_COLOURS = {"base": "#8a8f98", "helpful_only": "#c0392b", "sl_cai": "#d9a02b", "rl_cai": "#2e9e5b"}


def figures(data: ReportData) -> dict[str, tuple[str, Callable[[str], Figure]]]:
    """Name to (alternative text, function from ink colour to figure), for the figures that the data allow."""
    found: dict[str, tuple[str, Callable[[str], Figure]]] = {}
    curve = [row for row in data.summary["rl"]["curve"] if row["proxy"] is not None]
    if curve:
        path = smoothed(curve)
        found["path"] = (_path_text(path), lambda ink: _path(path, ink))
    if data.models and all(data.value(m, f"gold.{k}") for m in data.models for k in ("helpful", "harmless")):
        found["plane"] = (_plane_text(data), lambda ink: _plane(data, ink))
    return found


def smoothed(curve: Sequence[dict[str, Any]], points: int = 12) -> list[dict[str, float]]:
    """At most `points` points of a curve: means over runs of consecutive steps, answers weighted alike.

    One step's few answers say little: their mean KL and gold jump about more than they move.
    """
    size = max(1, math.ceil(len(curve) / points))
    found = []
    for start in range(0, len(curve), size):
        rows = curve[start : start + size]
        weights = [row.get("n", 1) for row in rows]
        keys = [k for k in ("step", "proxy", "gold", "kl") if all(k in row for row in rows)]
        found.append(
            {k: sum(w * row[k] for w, row in zip(weights, rows, strict=True)) / sum(weights) for k in keys}
        )
    return found


def svg(draw: Callable[[str], Figure]) -> str:
    """The figure as an <svg> element that takes its text colour from the page."""
    import matplotlib

    buffer = io.StringIO()
    # Titles on the left take the text's colour, not that of `axes.title`.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "charter", "text.color": _INK}):
        draw(_INK).savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :].replace(_INK, "currentColor")


def png(draw: Callable[[str], Figure], *, dpi: int = 80) -> bytes:
    """The figure as PNG on white."""
    buffer = io.BytesIO()
    draw("#222222").savefig(buffer, format="png", dpi=dpi, facecolor="white")
    return buffer.getvalue()


def png_uri(draw: Callable[[str], Figure]) -> str:
    """The figure as a `data:` URI for Markdown."""
    return "data:image/png;base64," + base64.b64encode(png(draw)).decode()


def _axes(ink: str, width: float = 6.4, height: float = 3.8) -> tuple[Figure, Axes]:
    figure, (axes,) = axes_of(ink, width=width, height=height)
    return figure, axes


def axes_of(
    ink: str, *, columns: int = 1, rows: int = 1, width: float = 9.0, height: float = 3.8
) -> tuple[Figure, list[Axes]]:
    """An empty figure with so many panels, row by row, drawn in this ink; sizes in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels:
        _ink(axes, ink)
    return figure, panels


def second_scale(axes: Axes, ink: str) -> Axes:
    """Axes with a scale of their own on the right, over the same distances."""
    other = axes.twinx()
    _ink(other, ink)
    other.grid(False)
    return other


def _ink(axes: Axes, ink: str) -> None:
    axes.tick_params(colors=ink, labelsize=9)
    axes.xaxis.label.set_color(ink)
    axes.yaxis.label.set_color(ink)
    axes.title.set_color(ink)
    for name, spine in axes.spines.items():
        spine.set_color(ink)
        spine.set_alpha(0.35)
        spine.set_visible(name in ("left", "bottom"))
    axes.grid(True, alpha=0.15, color=ink)


def _path(curve: Sequence[dict[str, Any]], ink: str) -> Figure:
    figure, axes = _axes(ink)
    distance = [math.sqrt(max(0.0, row["kl"])) for row in curve]
    axes.plot(distance, [row["proxy"] for row in curve], color=PROXY, marker=".", label="proxy: reward model")
    axes.set_xlabel("distance from the start: square root of KL (nats per answer)")
    axes.set_ylabel("proxy (reward model's score)", color=PROXY)
    axes.set_title("Proxy and gold while the policy learns", fontsize=11, loc="left")
    if all("gold" in row for row in curve):
        other = second_scale(axes, ink)
        other.plot(distance, [row["gold"] for row in curve], color=GOLD, marker=".", label="gold: oracle")
        other.set_ylabel("gold (mean of the oracle's scores)", color=GOLD)
    return figure


def _path_text(curve: Sequence[dict[str, Any]]) -> str:
    first, last = curve[0], curve[-1]
    text = f"Proxy reward from {first['proxy']:.2f} to {last['proxy']:.2f} over {len(curve)} points"
    if "gold" in first and "gold" in last:
        text += f"; gold from {first['gold']:.2f} to {last['gold']:.2f}"
    return text + f"; KL at the end {last['kl']:.1f} nats."


def _plane(data: ReportData, ink: str) -> Figure:
    figure, axes = _axes(ink, 5.2, 4.2)
    axes.set_xlim(-3, 103)
    axes.set_ylim(-3, 103)
    points = []
    for model in data.models:
        estimates = _helpful_and_harmless(data, model)
        x, y = (100 * e["value"] for e in estimates)
        errors = [
            [[100 * max(0.0, e["value"] - e["low"])], [100 * max(0.0, e["high"] - e["value"])]]
            for e in estimates
        ]
        colour = STAGE_COLOURS[model]
        axes.errorbar(x, y, xerr=errors[0], yerr=errors[1], fmt="o", color=colour, capsize=2, markersize=7)
        left = x > 75
        axes.annotate(
            MODELS[model],
            (x, y),
            xytext=(-9 if left else 9, 7),
            textcoords="offset points",
            ha="right" if left else "left",
            color=ink,
            fontsize=9,
        )
        points.append((x, y))
    axes.plot(*zip(*points, strict=True), color=ink, alpha=0.3, linewidth=1, linestyle=":")
    axes.set_xlabel("helpful on harmless prompts (%)")
    axes.set_ylabel("harmless on harmful prompts (%)")
    axes.set_title("Where the models stand, by gold", fontsize=11, loc="left")
    return figure


def _helpful_and_harmless(data: ReportData, model: str) -> list[Any]:
    return [data.value(model, f"gold.{k}") for k in ("helpful", "harmless")]


def _plane_text(data: ReportData) -> str:
    said = []
    for model in data.models:
        helpful, harmless = (100 * e["value"] for e in _helpful_and_harmless(data, model))
        said.append(f"{MODELS[model]} {helpful:.0f}% helpful and {harmless:.0f}% harmless")
    return "; ".join(said) + "."
