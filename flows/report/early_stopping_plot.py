"""The plot of what the brake saw: proxy and gold on held-out prompts against root KL, with the fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from flows.report.early_stopping import brake_sentences, fit_words, gold_fit, kept
from flows.report.figures import GOLD, PROXY, axes_of, second_scale

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STEPS = 60


def brake_figure(found: Mapping[str, Any]) -> tuple[str, Callable[[str], Figure]] | None:
    """(alternative text, function from ink colour to figure) of the summary's `rl`; None without a brake."""
    if not found.get("brake"):
        return None
    shape = gold_fit(found["brake"])
    text = [*brake_sentences(found), *([fit_words(shape)] if shape else [])]
    return " ".join(text), lambda ink: _draw(found, ink)


def _draw(found: Mapping[str, Any], ink: str) -> Figure:
    rows = found["brake"]
    figure, (axes,) = axes_of(ink, width=6.4)
    distance = [row["root_kl"] for row in rows]
    axes.plot(distance, [row["proxy"] for row in rows], color=PROXY, marker=".")
    axes.set_xlabel("distance from the start: square root of KL (nats per answer)")
    axes.set_ylabel("proxy (the reward)", color=PROXY)
    axes.set_title("What the brake saw on held-out prompts", fontsize=11, loc="left")
    other = second_scale(axes, ink)
    other.plot(distance, [row["gold"] for row in rows], color=GOLD, marker=".", label="gold")
    judge = "model of people's verdicts" if found.get("gold_model") else "held-out judge"
    other.set_ylabel(f"gold (mean of the {judge})", color=GOLD)
    if (shape := gold_fit(rows)) is not None:
        along = [max(distance) * n / _STEPS for n in range(_STEPS + 1)]
        fitted = [rows[0]["gold"] + shape(d) for d in along]
        other.plot(along, fitted, color=ink, linestyle=":", label="gold, fit of Gao et al.")
    best = kept(found)
    other.plot(
        [best["root_kl"]],
        [best["gold"]],
        linestyle="none",
        marker="o",
        markersize=11,
        markerfacecolor="none",
        markeredgecolor=ink,
        label=f"kept: step {best['step']}",
    )
    figure.legend(loc="outside lower center", ncols=3, frameon=False, labelcolor=ink, fontsize=9)
    return figure
