"""What the labels cost, as a sentence and a table; `flows.runs.costs` has the figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Costs = Mapping[str, Any]


def cost_sentences(costs: Costs) -> list[str]:
    """The costs in a sentence; nothing without labels."""
    if not costs:
        return []
    judge, attempt, paid = costs["judge"], costs["attempt"], costs.get("money", {})
    said = f"The {costs['labels']:,} labels took {tokens(judge):,} tokens and {_time(judge['seconds'])} of the judge"
    if attempt["judgements"] < judge["judgements"]:
        said += f", {tokens(attempt):,} and {_time(attempt['seconds'])} of it in this attempt"
    if "judge" in paid:
        said += f", {money(paid['judge'])} at the stated price"
    if "people" in paid:
        said += f"; labels by people would have cost {money(paid['people'])}"
        if paid.get("judge"):
            said += f", {_times(paid['people'] / paid['judge'])} as much"
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
        now = "-" if attempt["charged"] is None else money(attempt["charged"])
        rows.append(
            ["charged by the endpoint", money(judge["charged"]), now, money(judge["charged"] / labels)]
        )
    for name, heading in (("judge", "money, judge"), ("people", "money, labels by people")):
        if (paid := costs.get("money", {}).get(name)) is not None:
            rows.append([heading, money(paid), "", money(paid / labels)])
    return rows


def price_words(costs: Costs) -> str:
    """The prices that the money was counted with; empty without any."""
    prices = costs.get("prices", {})
    said = []
    if (read := prices.get("price_per_million_tokens")) is not None:
        said.append(f"{read:g} a million tokens")
    if (written := prices.get("price_per_million_written_tokens")) is not None:
        said[-1] += f" read, {written:g} written"
    if (label := prices.get("price_per_human_label")) is not None:
        said.append(f"{label:g} a label by a person")
    return f"At the prices that the configuration states: {', '.join(said)}." if said else ""


def tokens(spent: Mapping[str, Any]) -> int:
    """Read and written together."""
    return spent["prompt_tokens"] + spent["completion_tokens"]


def _time(seconds: float) -> str:
    return f"{seconds:,.0f} s" if seconds < 600 else f"{seconds / 3600:,.1f} h"


def money(amount: float) -> str:
    """Two digits behind the point, or as many as a small amount needs to be seen."""
    return f"{amount:,.2f}" if amount >= 0.1 or amount == 0 else f"{amount:.2g}"


def _times(ratio: float) -> str:
    return f"{ratio:,.0f} times" if ratio >= 10 else f"{ratio:.1f} times"
