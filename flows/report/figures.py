"""The plots of a run: the path of reinforcement learning, and where the models stand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from common.sections import Plot
from common.statistics import Estimate
from flows.report.data import MODELS, ReportData
from flows.report.drawing import GOLD, PROXY, STAGE_COLOURS, axes_of, second_scale
from flows.report.over_optimisation import CurvePoint

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figures(data: ReportData) -> dict[str, Plot]:
    """By name, the plots that the data allow."""
    found: dict[str, Plot] = {}
    if curve := smoothed([point for point in data.summary.rl.curve if point.proxy is not None]):
        found["path"] = Plot(text=_path_text(curve), draw=lambda ink: _path(curve, ink))
    stands = {model: _helpful_and_harmless(data, model) for model in data.models}
    places = {model: (x, y) for model, (x, y) in stands.items() if x is not None and y is not None}
    if places and len(places) == len(stands):
        found["plane"] = Plot(text=_plane_text(places), draw=lambda ink: _plane(places, ink))
    return found


def smoothed(curve: Sequence[CurvePoint], points: int = 12) -> list[CurvePoint]:
    """At most `points` points of a curve: means over runs of consecutive steps, answers weighted alike.

    One step's few answers say little: their mean KL and gold jump about more than they move.
    """
    size = max(1, math.ceil(len(curve) / points))
    found = []
    for start in range(0, len(curve), size):
        rows = curve[start : start + size]
        n = sum(row.n for row in rows)
        means = {
            name: sum(row.n * getattr(row, name) for row in rows) / n
            for name in ("step", "proxy", "gold", "kl")
            if all(getattr(row, name) is not None for row in rows)
        }
        found.append(CurvePoint.from_json({"n": n, "proxy": None, **means}))
    return found


def _path(curve: Sequence[CurvePoint], ink: str) -> Figure:
    figure, (axes,) = axes_of(ink, width=6.4)
    distance = [math.sqrt(max(0.0, point.kl)) for point in curve]
    proxy = [point.proxy for point in curve if point.proxy is not None]
    axes.plot(distance, proxy, color=PROXY, marker=".", label="proxy: reward model")
    axes.set_xlabel("distance from the start: square root of KL (nats per answer)")
    axes.set_ylabel("proxy (reward model's score)", color=PROXY)
    axes.set_title("Proxy and gold while the policy learns", fontsize=11, loc="left")
    gold = [point.gold for point in curve if point.gold is not None]
    if len(gold) == len(curve):
        other = second_scale(axes, ink)
        other.plot(distance, gold, color=GOLD, marker=".", label="gold: oracle")
        other.set_ylabel("gold (mean of the oracle's scores)", color=GOLD)
    return figure


def _path_text(curve: Sequence[CurvePoint]) -> str:
    first, last = curve[0], curve[-1]
    text = f"Proxy reward from {first.proxy:.2f} to {last.proxy:.2f} over {len(curve)} points"
    if first.gold is not None and last.gold is not None:
        text += f"; gold from {first.gold:.2f} to {last.gold:.2f}"
    return text + f"; KL at the end {last.kl:.1f} nats."


def _plane(places: dict[str, tuple[Estimate, Estimate]], ink: str) -> Figure:
    figure, (axes,) = axes_of(ink, width=5.2, height=4.2)
    axes.set_xlim(-3, 103)
    axes.set_ylim(-3, 103)
    points = []
    for model, estimates in places.items():
        (x, left, right), (y, bottom, top) = (estimate.scaled(100) for estimate in estimates)
        across = [[max(0.0, x - left)], [max(0.0, right - x)]]
        along = [[max(0.0, y - bottom)], [max(0.0, top - y)]]
        colour = STAGE_COLOURS[model]
        axes.errorbar(x, y, xerr=across, yerr=along, fmt="o", color=colour, capsize=2, markersize=7)
        on_the_left = x > 75
        axes.annotate(
            MODELS[model],
            (x, y),
            xytext=(-9 if on_the_left else 9, 7),
            textcoords="offset points",
            ha="right" if on_the_left else "left",
            color=ink,
            fontsize=9,
        )
        points.append((x, y))
    axes.plot(*zip(*points, strict=True), color=ink, alpha=0.3, linewidth=1, linestyle=":")
    axes.set_xlabel("helpful on harmless prompts (%)")
    axes.set_ylabel("harmless on harmful prompts (%)")
    axes.set_title("Where the models stand, by gold", fontsize=11, loc="left")
    return figure


def _helpful_and_harmless(data: ReportData, model: str) -> tuple[Estimate | None, Estimate | None]:
    return data.value(model, "gold.helpful"), data.value(model, "gold.harmless")


def _plane_text(places: dict[str, tuple[Estimate, Estimate]]) -> str:
    said = [
        f"{MODELS[model]} {helpful.scaled(100)[0]:.0f}% helpful and {harmless.scaled(100)[0]:.0f}% harmless"
        for model, (helpful, harmless) in places.items()
    ]
    return "; ".join(said) + "."
