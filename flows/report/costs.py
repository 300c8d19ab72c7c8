"""What the labels cost, as a sentence, a table and a plot; `flows.costs` has the figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from flows.report.figures import GOLD, LENGTH, PROXY, axes_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Costs = Mapping[str, Any]


def cost_sentences(costs: Costs) -> list[str]:
    """The costs in a sentence; nothing without labels."""
    if not costs:
        return []
    judge, attempt, money = costs["judge"], costs["attempt"], costs.get("money", {})
    said = f"The {costs['labels']:,} labels took {_tokens(judge):,} tokens and {_time(judge['seconds'])} of the judge"
    if attempt["judgements"] < judge["judgements"]:
        said += f", {_tokens(attempt):,} and {_time(attempt['seconds'])} of it in this attempt"
    if "judge" in money:
        said += f", {_money(money['judge'])} at the stated price"
    if "people" in money:
        said += f"; labels by people would have cost {_money(money['people'])}"
        if money.get("judge"):
            said += f", {_times(money['people'] / money['judge'])} as much"
    return [said + "."]


def cost_rows(costs: Costs) -> list[list[str]]:
    """(what, all labels, those judgements that this attempt asked for, a label on average)."""
    if not costs:
        return []
    judge, attempt, labels = costs["judge"], costs["attempt"], costs["labels"]
    rows = [["what", "all labels", "this attempt", "per label"]]
    for name, heading in (
        ("judgements", "judgements"),
        ("prompt_tokens", "tokens read"),
        ("completion_tokens", "tokens written"),
    ):
        rows.append([heading, f"{judge[name]:,}", f"{attempt[name]:,}", f"{judge[name] / labels:,.1f}"])
    seconds = (judge["seconds"], attempt["seconds"], judge["seconds"] / labels)
    rows.append(["seconds of the judge", f"{seconds[0]:,.1f}", f"{seconds[1]:,.1f}", f"{seconds[2]:,.3f}"])
    if judge["charged"] is not None:
        now = "-" if attempt["charged"] is None else _money(attempt["charged"])
        rows.append(
            ["charged by the endpoint", _money(judge["charged"]), now, _money(judge["charged"] / labels)]
        )
    for name, heading in (("judge", "money, judge"), ("people", "money, labels by people")):
        if (paid := costs.get("money", {}).get(name)) is not None:
            rows.append([heading, _money(paid), "", _money(paid / labels)])
    return rows


def price_words(costs: Costs) -> str:
    """The prices that the money was counted with; empty without any."""
    prices = costs.get("prices", {})
    said = []
    if (tokens := prices.get("price_per_million_tokens")) is not None:
        said.append(f"{tokens:g} a million tokens")
    if (written := prices.get("price_per_million_written_tokens")) is not None:
        said[-1] += f" read, {written:g} written"
    if (label := prices.get("price_per_human_label")) is not None:
        said.append(f"{label:g} a label by a person")
    return f"At the prices that the configuration states: {', '.join(said)}." if said else ""


def cost_figure(costs: Costs) -> tuple[str, Callable[[str], Figure]] | None:
    """(alternative text, function from ink colour to figure): tokens, seconds, and money where both prices are known."""
    if not costs:
        return None
    return " ".join(cost_sentences(costs)), lambda ink: _draw(costs, ink)


def _draw(costs: Costs, ink: str) -> Figure:
    judge, attempt, money = costs["judge"], costs["attempt"], costs.get("money", {})
    priced = "judge" in money and "people" in money
    figure, panels = axes_of(ink, rows=3 if priced else 2, width=6.4, height=3.9 if priced else 2.8)
    both = ("all labels", "this attempt")
    _bars(panels[0], ink, "tokens", both, (_tokens(judge), _tokens(attempt)), PROXY)
    _bars(panels[1], ink, "seconds of the judge", both, (judge["seconds"], attempt["seconds"]), LENGTH)
    if priced:
        shown = (money["judge"], money["people"])
        _bars(panels[2], ink, "money at the stated prices", ("judge", "people"), shown, GOLD, text=_money)
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


def _tokens(spent: Mapping[str, Any]) -> int:
    return spent["prompt_tokens"] + spent["completion_tokens"]


def _time(seconds: float) -> str:
    return f"{seconds:,.0f} s" if seconds < 600 else f"{seconds / 3600:,.1f} h"


def _money(amount: float) -> str:
    """Two digits behind the point, or as many as a small amount needs to be seen."""
    return f"{amount:,.2f}" if amount >= 0.1 or amount == 0 else f"{amount:.2g}"


def _times(ratio: float) -> str:
    return f"{ratio:,.0f} times" if ratio >= 10 else f"{ratio:.1f} times"
