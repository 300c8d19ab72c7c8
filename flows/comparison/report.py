"""A comparison of models for people: tables for the terminal, an HTML page, Markdown for the Prefect artifact."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape

from common.text import printable
from flows.comparison.matches import OVERALL
from flows.comparison.report_principles import (
    SAID,
    examples_markdown,
    principle_rows,
    principle_sentences,
    print_examples,
    shown_examples,
)
from flows.report.html import environment
from flows.report.markdown import escape as inert
from flows.report.markdown import table as markdown_table
from flows.report.side_effects import effect_rows, effect_sentences
from flows.report.terminal import table as terminal_table

Figures = Mapping[str, Any]
_GOLD = ("helpful", "honest", "harmless", "non_evasive", "benign_refusals", "overall")


def names(figures: Figures) -> list[str]:
    """The models, in the order asked for."""
    return [model["name"] for model in figures["models"]]


def standing_rows(figures: Figures) -> list[list[str]]:
    """One row a model: rating, win rate against all others, the same at equal length, and by dimension."""
    dimensions = [d for d in figures["dimensions"] if d != OVERALL]
    rows = [["model", "Elo", "wins %", "at equal length %", *(f"{d} %" for d in dimensions), "words"]]
    rated = (figures["ratings"] or {}).get("models", {})
    for name in names(figures):
        overall = figures["dimensions"][OVERALL]["against_all"][name]
        rows.append(
            [
                name,
                _points(rated.get(name)),
                _share(overall["win_rate"]),
                _share(overall["length_controlled"]),
                *(_share(figures["dimensions"][d]["against_all"][name]["win_rate"]) for d in dimensions),
                _number(figures["answers"][name]["words"]),
            ]
        )
    return rows


def pair_rows(figures: Figures) -> list[list[str]]:
    """One row a pair of models: wins, ties, losses, what was not decided, and the win rates of the first."""
    rows = [["first against second", "won", "tied", "lost", "undecided", "wins %", "at equal length %"]]
    for pair in figures["dimensions"][OVERALL]["pairs"]:
        counts = [str(pair[key]) for key in ("wins", "ties", "losses", "undecided")]
        rates = [_share(pair["win_rate"]), _share(pair["length_controlled"])]
        rows.append([f"{pair['a']} : {pair['b']}", *counts, *rates])
    return rows


def gold_rows(figures: Figures) -> list[list[str]]:
    """What gold says of each model's answers; only a heading where it says nothing."""
    rows = [["model", *(f"{key.replace('_', '-')} %" for key in _GOLD)]]
    for name in names(figures):
        if found := figures["answers"][name].get("gold"):
            rows.append([name, *(_share(found[key]) for key in _GOLD)])
    return rows


def reference_rows(figures: Figures) -> list[list[str]]:
    """BLEU and ROUGE of each model's answers; only a heading where no prompt has references."""
    rows = [["model", "BLEU", "ROUGE-1 F", "ROUGE-2 F", "ROUGE-L F", "prompts"]]
    for name in names(figures):
        if found := figures["answers"][name]["references"]:
            rouge = [_share(found[key]) for key in ("rouge1", "rouge2", "rougeL")]
            rows.append([name, f"{found['bleu']['value']:.1f}", *rouge, str(found["bleu"]["n"])])
    return rows


def findings(figures: Figures) -> list[str]:
    """What a person should know first, in sentences; never the rank alone."""
    found = [_lead(figures)]
    statuses = figures["statuses"][OVERALL]
    total = sum(statuses.values())
    flips, failed = statuses.get("inconsistent", 0), _failed(statuses)
    found.append(
        f"Of {total} matches the judge decided {statuses.get('ok', 0)}; {statuses.get('tie', 0)} ties, {flips} "
        f"verdicts that turned with the order (counted as ties), {statuses.get('identical', 0)} identical answers, "
        f"{failed} failed."
    )
    found += principle_sentences(figures)
    if dropped := figures["prompts"]["too_long"]:
        found.append(f"{dropped} prompts were left out: too long for one of the models.")
    for name in names(figures):
        found += effect_sentences(figures["side_effects"], name, name)
        truncated = figures["answers"][name]["truncated"]
        if truncated:
            found.append(f"Cut off at the longest length: {truncated} of the answers of {name}.")
    if not figures["constitution"]["published"]:
        found.append("The constitution is a working file, not a published version.")
    return found


def sections(figures: Figures) -> list[tuple[str, str, list[list[str]]]]:
    """(heading, what it says, rows) of every table that has something to say."""
    watched = {name: name for name in names(figures)}
    tables = [
        (
            "Standings",
            "Each model against all others together, 95% intervals over prompts; a tie counts one half. One number "
            "alone misleads: a judge may like what is long, and help may be bought with harm.",
            standing_rows(figures),
        ),
        ("Head to head", "By all principles together, seen from the first model.", pair_rows(figures)),
        ("Principle by principle", SAID, principle_rows(figures)),
        ("Gold", "The microworld's oracle, which no judge and no training sees.", gold_rows(figures)),
        ("Against reference answers", "BLEU 0-100, ROUGE F in %.", reference_rows(figures)),
        (
            "Side effects",
            f"Shares in %, 95% intervals. {names(figures)[0]} is what is normal; ▲ marks what lies beyond its "
            "threshold with its whole interval.",
            effect_rows(figures["side_effects"], watched),
        ),
    ]
    return [(heading, said, rows) for heading, said, rows in tables if len(rows) > 1]


def print_comparison(figures: Figures, console: Console) -> None:
    """All tables on a terminal, models as columns where a model has many figures, then the findings."""
    for heading, _, rows in sections(figures):
        turned = [list(row) for row in zip(*rows, strict=True)] if heading in ("Standings", "Gold") else rows
        console.print(terminal_table(heading, turned))
    print_examples(figures, console)
    for sentence in findings(figures):
        console.print(f"- {escape(printable(sentence))}", highlight=False)


def html(figures: Figures) -> str:
    """The whole page; every value is escaped."""
    return (
        environment()
        .get_template("comparison.html.j2")
        .render(
            title=" : ".join(names(figures)),
            about=about(figures),
            findings=findings(figures),
            sections=sections(figures),
            examples=shown_examples(figures),
            models=figures["models"],
            method=(figures["ratings"] or {}).get("method", ""),
        )
    )


def markdown(figures: Figures) -> str:
    """The same for a Prefect artifact; every cell is escaped."""
    parts = [f"# {inert(' : '.join(names(figures)))}", inert(about(figures))]
    parts.append("\n".join(f"- {inert(sentence)}" for sentence in findings(figures)))
    for heading, said, rows in sections(figures):
        parts += [f"## {heading}", inert(said), markdown_table(rows)]
    if examples := examples_markdown(figures):
        parts.append(examples)
    return "\n\n".join(parts)


def about(figures: Figures) -> str:
    """What was asked of whom, in one line."""
    prompts, judge = figures["prompts"], figures["judge"]
    each = f", {prompts['samples']} answers each" if prompts["samples"] > 1 else ""
    return (
        f"{prompts['n']} prompts of {prompts['path']}{each}; judge {judge['model']}, constitution "
        f"{figures['constitution']['ref']}, seed {figures['sampling']['seed']}"
    )


def _lead(figures: Figures) -> str:
    rated = (figures["ratings"] or {}).get("models")
    if not rated:
        return "The judge decided too little to rate the models."
    ranked = sorted(rated, key=lambda name: -rated[name]["value"])
    best, second = ranked[0], ranked[1]
    (pair,) = [p for p in figures["dimensions"][OVERALL]["pairs"] if {p["a"], p["b"]} == {best, second}]
    rate = pair["win_rate"]
    clear = rate["low"] > 0.5 if pair["a"] == best else rate["high"] < 0.5
    dimensions = [
        f"{d} {100 * share['value']:.0f}%"
        for d, found in figures["dimensions"].items()
        if d != OVERALL and (share := found["against_all"][best]["win_rate"])["value"] is not None
    ]
    lead = f"{best} is rated highest" if clear else f"{best} and {second} cannot be told apart"
    return f"{lead}: {best} wins on {', '.join(dimensions)}."


def _failed(statuses: Mapping[str, int]) -> int:
    return sum(
        n for status, n in statuses.items() if status not in ("ok", "tie", "inconsistent", "identical")
    )


def _share(figure: Mapping[str, Any]) -> str:
    if figure["value"] is None:
        return "-"
    return "{:.0f} ({:.0f}-{:.0f})".format(*(100 * figure[key] for key in ("value", "low", "high")))


def _number(figure: Mapping[str, Any]) -> str:
    return "-" if figure["value"] is None else f"{figure['value']:.1f}"


def _points(figure: Mapping[str, Any] | None) -> str:
    return "-" if figure is None else "{value:.0f} ({low:.0f}-{high:.0f})".format(**figure)
