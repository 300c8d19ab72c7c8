"""Two models principle by principle, for people: table, sentences, and the answers where they part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape as without_markup
from rich.text import Text

from common.text import clipped
from flows.report.data import shown
from flows.report.markdown import escape, table

Figures = Mapping[str, Any]

SAID = (
    "Both models under one principle at a time. Intervals are 95% for each principle on its own; p is adjusted for the "
    "number of principles (Benjamini and Hochberg), and a winner is named where it is below 0.05. The same prompts "
    "and answers stand in every row."
)
# A Markdown artifact is downloaded whole with the list of artifacts; the page and comparison.json have all examples.
_ARTIFACT_BYTES = 120_000
_TERMINAL_PRINCIPLES = 4


def principle_rows(figures: Figures) -> list[list[str]]:
    """One row a principle: what was done to it, the first model's wins, and who is ahead; a heading alone for none."""
    found = figures.get("by_principle")
    first = figures["models"][0]["name"]
    rows = [
        ["principle", "edit", f"{first} wins %", "p adjusted", "ahead", "won", "tied", "lost", "undecided"]
    ]
    for one in found["principles"] if found else ():
        rate, p = one["win_rate"], one["p_adjusted"]
        rows.append(
            [
                one["id"],
                one["mark"] or "-",
                shown(rate if rate["value"] is not None else None, True),
                "-" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}",
                one["favours"] or "-",
                *(str(one[key]) for key in ("wins", "ties", "losses", "undecided")),
            ]
        )
    return rows


def principle_sentences(figures: Figures) -> list[str]:
    """Under which principles the models part, then one sentence for each principle that was edited."""
    found = figures.get("by_principle")
    if not found:
        return []
    principles = found["principles"]
    tested = [one for one in principles if one["p_adjusted"] is not None]
    parted = [one for one in tested if one["favours"]]
    ahead = ", ".join(f"{one['id']} ({one['favours']} is ahead)" for one in parted)
    of = f"Under {len(parted)} of {len(tested)} principles the models part, after correction for that number"
    said = [f"{of}: {ahead}." if ahead else f"{of}."]
    first = figures["models"][0]["name"]
    said += [f"Edited: {_outcome(one, first)}" for one in principles if one["mark"]]
    if found["before"] is None:
        said.append("What was edited is not known: the constitution behind the first model was not given.")
    elif found["before"]["digest"] == found["after"]["digest"]:
        said.append(f"Both models belong to one constitution, {found['after']['ref']}.")
    else:
        rest = found["also_edited"]
        elsewhere = f"; also edited: {'; '.join(rest)}" if rest else ""
        said.append(f"From {found['before']['ref']} to {found['after']['ref']}{elsewhere}.")
    return said


def shown_examples(figures: Figures) -> list[dict[str, Any]]:
    """The principles that have pairs to show, edited ones first, then those that part the models, then the rest."""
    principles = (figures.get("by_principle") or {"principles": ()})["principles"]
    with_pairs = [one for one in principles if one["examples"]]
    return sorted(with_pairs, key=lambda one: (not one["mark"], not one["favours"]))


def examples_markdown(figures: Figures) -> str:
    """The examples for an artifact, one for each model and principle; "" without any."""
    a, b = (model["name"] for model in figures["models"][:2])
    blocks: list[str] = []
    size = 0
    shown = shown_examples(figures)
    for one in shown:
        rows = [["preferred", "prompt", a, b]]
        rows += [_cells(example) for example in _one_each(one["examples"])]
        heading = " ".join(part for part in (one["id"], one["mark"]) if part)
        block = f"**{escape(heading)}**: {_questions(one)}\n\n{table(rows)}"
        size += len(block.encode())
        if size > _ARTIFACT_BYTES:
            blocks.append(f"{len(shown) - len(blocks)} more principles: see comparison.html.")
            break
        blocks.append(block)
    return "\n\n".join(["## Where the models part", *blocks]) if blocks else ""


def print_examples(figures: Figures, console: Console) -> None:
    """The strongest pair for each model under the first few principles, one line an answer."""
    a, b = (model["name"] for model in figures["models"][:2])
    width = max(40, console.width - 4)
    for one in shown_examples(figures)[:_TERMINAL_PRINCIPLES]:
        console.print(f"[bold]{without_markup(clipped(one['id'], 60))}[/bold] {one['mark']}", highlight=False)
        for example in _one_each(one["examples"]):
            console.print(Text("  " + clipped(example["prompt"], width)))
            for name, key in ((a, "a"), (b, "b")):
                mark = "*" if name == example["winner"] else " "
                console.print(Text(f"  {mark} " + clipped(f"{name}: {example[key]}", width - 2)))


def _outcome(one: Mapping[str, Any], first: str) -> str:
    """One principle in a sentence."""
    what = one["change"].partition(": ")[2]
    edit = "; ".join(dict.fromkeys(part for part in (one["mark"], what) if part))
    name = f"{one['id']} ({edit})" if edit else one["id"]
    rate = one["win_rate"]
    if rate["value"] is None:
        return f"{name}: the judge decided nothing."
    ahead = f"{one['favours']} is ahead" if one["favours"] else "the models cannot be told apart"
    return f"{name}: {ahead}; {first} wins {shown(rate, True)} % of {rate['n']} prompts."


def _one_each(examples: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The first example of each winner: they come with the clearest first."""
    return list({example["winner"]: example for example in reversed(examples)}.values())[::-1]


def _cells(example: Mapping[str, Any]) -> list[str]:
    sure = max(example["p"], 1 - example["p"])
    return [f"{example['winner']} ({100 * sure:.0f}%)", example["prompt"], example["a"], example["b"]]


def _questions(one: Mapping[str, Any]) -> str:
    before = one["question_before"]
    said = escape(one["question"])
    return said if before in (None, one["question"]) else f"{said} (before: {escape(before)})"
