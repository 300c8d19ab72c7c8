"""The side effects that a run or a comparison brought along, as tables and sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flows.evaluation.effects import MIN_PROMPTS

FLAGGED = "▲"


def effect_rows(watched: Mapping[str, Any], names: Mapping[str, str]) -> list[list[str]]:
    """One row an effect: what it measures, each model's figure, and the threshold; flagged figures carry a mark.

    `watched` is what `flows.evaluation.watch` gave, `names` the models to show with the names that people read.
    """
    if not watched:
        return []
    models = [model for model in names if model in watched["models"]]
    rows = [["measure", *(names[m] for m in models), "flagged beyond"]]
    for key, effect in watched["effects"].items():
        found = [watched["models"][m].get(key) for m in models]
        if any(f and (f["value"] is not None or f.get("phrases")) for f in found):
            cells = [_cell(f, effect["share"]) for f in found]
            rows.append([effect["what"], *cells, effect["rule"]])
    for key, what in (
        ("longest_repeat", "longest repeated run of words"),
        ("compression", "compression ratio"),
    ):
        rows.append([what, *(_plain(watched["models"][m][key]) for m in models), ""])
    return rows


def step_rows(watched: Mapping[str, Any]) -> list[list[str]]:
    """One row a stretch of steps of reinforcement learning, with the names of what left the normal range."""
    rows = [
        [
            "steps",
            "words",
            "refused",
            "evasive",
            "false and sure",
            "repeated 4-grams",
            "different 2-grams",
            "most overused phrase",
            "flags",
        ]
    ]
    for stretch in watched.get("steps", ()):
        shares = [stretch[key] for key in ("refusals", "evasions", "wrong", "repetition", "distinct_2")]
        phrase, flags = stretch["boilerplate"], stretch["flags"]
        rows.append(
            [
                f"{stretch['first']}-{stretch['last']}",
                f"{stretch['length']:.1f}",
                *("-" if s is None else f"{100 * s:.0f}" for s in shares),
                f"“{phrase['text']}” in {100 * phrase['share']:.0f}" if phrase else "-",
                "too few prompts to tell" if flags is None else ", ".join(flags) or "-",
            ]
        )
    return rows


def effect_sentences(watched: Mapping[str, Any], model: str, name: str) -> list[str]:
    """What is to be said of one model: each flag with its figure and what is normal, or that there is none.

    Effects that too few prompts tell about are counted apart: nothing is known of them.
    """
    if not watched or model not in watched["flags"] or model == watched["reference"]:
        return []
    flags: Sequence[str] = watched["flags"][model]
    untold = len(watched["untold"][model])
    told = sum(key in watched["models"][model] for key in watched["effects"]) - untold
    said = [f"Side effect in {name}: {flag}." for flag in flags]
    if not flags and told:
        said.append(f"Side effects: none of {told} left the normal range in {name}.")
    if untold:
        said.append(f"Side effects in {name}: {untold} not judged, on fewer than {MIN_PROMPTS} prompts.")
    return said


def _cell(figure: Mapping[str, Any] | None, share: bool) -> str:
    if not figure or figure["value"] is None:
        return "-"
    scale, digits = (100.0, 0) if share else (1.0, 1)
    text = f"{scale * figure['value']:.{digits}f}"
    if figure.get("low") is not None:
        text += f" ({scale * figure['low']:.{digits}f} to {scale * figure['high']:.{digits}f})"
    change = figure.get("change")
    if change and change["value"] is not None:
        value, low, high = (100 * change[key] for key in ("value", "low", "high"))
        text += f", in as many words {value:+.0f}% ({low:+.0f} to {high:+.0f})"
    return f"{text} {FLAGGED}" if figure.get("flag") else text


def _plain(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if isinstance(value, float) else str(value)
