"""What the labels cost: figures, a sentence, a table and a plot; `flows.labelling.ledger` counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from common.record import ABSENT, Record
from common.sections import Cell, Measure, Plot, Section
from flows.report.drawing import GOLD, LENGTH, PROXY, axes_of
from judges.ledger.spending import Spending

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Prices(Record):
    """What the configuration states; None for what it does not."""

    price_per_million_tokens: float | None = None
    price_per_million_written_tokens: float | None = None
    price_per_human_label: float | None = None


@dataclass(frozen=True, kw_only=True)
class Money(Record):
    """For the tokens of all judgements, and for as many labels by people; None where no price is stated."""

    judge: Annotated[float | None, ABSENT] = None
    people: Annotated[float | None, ABSENT] = None


@dataclass(frozen=True, kw_only=True)
class Costs(Record):
    """`judge` sums the judgements behind all labels, whenever they were made, `attempt` those that the attempt made."""

    labels: int
    judge: Spending
    attempt: Spending
    prices: Annotated[Prices | None, ABSENT] = None
    money: Annotated[Money | None, ABSENT] = None


def cost_sentences(costs: Costs | None) -> list[str]:
    """The costs in a sentence; nothing without labels."""
    if costs is None:
        return []
    judge, attempt, paid = costs.judge, costs.attempt, costs.money or Money()
    said = (
        f"The {costs.labels:,} labels took {tokens(judge):,} tokens and {_time(judge.seconds)} of the judge"
    )
    if attempt.judgements < judge.judgements:
        said += f", {tokens(attempt):,} and {_time(attempt.seconds)} of it in this attempt"
    if paid.judge is not None:
        said += f", {money(paid.judge)} at the stated price"
    if paid.people is not None:
        said += f"; labels by people would have cost {money(paid.people)}"
        if paid.judge:
            said += f", {_times(paid.people / paid.judge)} as much"
    return [said + "."]


def cost_section(costs: Costs | None) -> Section:
    """All labels, the judgements that this attempt asked for, and a label on average."""
    if costs is None:
        return Section()
    judge, attempt, labels = costs.judge, costs.attempt, costs.labels
    rows: list[list[Cell]] = [["what", "all labels", "this attempt", "per label"]]
    for name, heading in (
        ("judgements", "judgements"),
        ("prompt_tokens", "tokens read"),
        ("completion_tokens", "tokens written"),
    ):
        count = getattr(judge, name)
        rows.append([heading, count, getattr(attempt, name), Measure(count / labels)])
    seconds = [Measure(judge.seconds), Measure(attempt.seconds), Measure(judge.seconds / labels, digits=3)]
    rows.append(["seconds of the judge", *seconds])
    if judge.charged is not None:
        now = None if attempt.charged is None else money(attempt.charged)
        rows.append(["charged by the endpoint", money(judge.charged), now, money(judge.charged / labels)])
    paid = costs.money or Money()
    for heading, amount in (("money, judge", paid.judge), ("money, labels by people", paid.people)):
        if amount is not None:
            rows.append([heading, money(amount), "", money(amount / labels)])
    text = (
        "All labels: every judgement behind them, whenever it was made. This attempt: what it asked itself; the rest "
        "was in the ledger. Seconds are the judge's, calls at the same time added up."
    )
    return Section(
        heading="What the labels cost", text=" ".join(filter(None, (text, _prices(costs.prices)))), rows=rows
    )


def cost_plot(costs: Costs | None) -> Plot | None:
    """Tokens, seconds, and money with both prices."""
    if costs is None:
        return None
    return Plot(text=" ".join(cost_sentences(costs)), draw=lambda ink: _draw(costs, ink))


def tokens(spent: Spending) -> int:
    """Read and written together."""
    return spent.prompt_tokens + spent.completion_tokens


def money(amount: float) -> str:
    """Two digits behind the point, or as many as a small amount needs to be seen."""
    return f"{amount:,.2f}" if amount >= 0.1 or amount == 0 else f"{amount:.2g}"


def _prices(prices: Prices | None) -> str:
    """The prices that the money was counted with; empty without any."""
    said = []
    if prices and prices.price_per_million_tokens is not None:
        said.append(f"{prices.price_per_million_tokens:g} a million tokens")
        if prices.price_per_million_written_tokens is not None:
            said[-1] += f" read, {prices.price_per_million_written_tokens:g} written"
    if prices and prices.price_per_human_label is not None:
        said.append(f"{prices.price_per_human_label:g} a label by a person")
    return f"At the prices that the configuration states: {', '.join(said)}." if said else ""


def _time(seconds: float) -> str:
    return f"{seconds:,.0f} s" if seconds < 600 else f"{seconds / 3600:,.1f} h"


def _times(ratio: float) -> str:
    return f"{ratio:,.0f} times" if ratio >= 10 else f"{ratio:.1f} times"


def _draw(costs: Costs, ink: str) -> Figure:
    judge, attempt, paid = costs.judge, costs.attempt, costs.money
    priced = paid is not None and None not in (paid.judge, paid.people)
    figure, panels = axes_of(ink, rows=3 if priced else 2, width=6.4, height=3.9 if priced else 2.8)
    both = ("all labels", "this attempt")
    _bars(panels[0], ink, "tokens", both, (tokens(judge), tokens(attempt)), PROXY)
    _bars(panels[1], ink, "seconds of the judge", both, (judge.seconds, attempt.seconds), LENGTH)
    if paid and paid.judge is not None and paid.people is not None:
        shown = (paid.judge, paid.people)
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
