"""How plots are drawn: SVG for a page, in the page's own text colour so that it reads in light and dark; PNG for
Prefect artifacts."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from common.statistics import Estimate
from common.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Stands for the page's text colour in the drawn SVG, and is replaced by `currentColor`.
_INK = "#010203"
PROXY, GOLD, LENGTH = "#3b82c4", "#d9822b", "#8a8f98"
STAGE_COLOURS = {"base": "#8a8f98", "helpful_only": "#c0392b", "sl_cai": "#d9a02b", "rl_cai": "#2e9e5b"}


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


def share_bars(shares: Mapping[str, Estimate], ink: str, *, label: str) -> Figure:
    """A bar with its interval for each share that is known."""
    known = {name: share.scaled(1) for name, share in shares.items() if share.value is not None}
    figure, (axes,) = axes_of(ink, width=6.4, height=0.9 + 0.3 * max(1, len(known)))
    bounds = [(value - low, high - value) for value, low, high in known.values()]
    axes.barh(
        range(len(known)),
        [value for value, _, _ in known.values()],
        xerr=list(zip(*bounds, strict=True)) or None,
        color=PROXY,
        ecolor=ink,
        height=0.62,
    )
    # "$" would start a formula in a label.
    axes.set_yticks(range(len(known)), [printable(name)[:30].replace("$", r"\$") for name in known])
    axes.invert_yaxis()
    axes.grid(False)
    axes.set_xlim(0, 1)
    axes.set_xlabel(label)
    return figure
