"""The side effects that a run or a comparison brought along, as tables and sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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
        ("distinct_2", "distinct 2-grams, %"),
        ("compression", "compression ratio"),
    ):
        rows.append([what, *(_plain(watched["models"][m][key], key) for m in models), ""])
    return rows


def step_rows(watched: Mapping[str, Any]) -> list[list[str]]:
    """One row a stretch of steps of reinforcement learning, with the names of what left the normal range."""
    rows = [["steps", "words", "refused", "evasive", "repeated 4-grams", "flags"]]
    for stretch in watched.get("steps", ()):
        shares = [stretch[key] for key in ("refusals", "evasions", "repetition")]
        rows.append(
            [
                f"{stretch['first']}-{stretch['last']}",
                f"{stretch['length']:.1f}",
                *("-" if s is None else f"{100 * s:.0f}" for s in shares),
                ", ".join(stretch["flags"]) or "-",
            ]
        )
    return rows


def effect_sentences(watched: Mapping[str, Any], model: str, name: str) -> list[str]:
    """What is to be said of one model: each flag with its figure and what is normal, or that there is none."""
    if not watched or model not in watched["flags"] or model == watched["reference"]:
        return []
    flags: Sequence[str] = watched["flags"][model]
    if not flags:
        return [f"Side effects: none of {len(watched['effects'])} left the normal range in {name}."]
    return [f"Side effect in {name}: {said}." for said in flags]


def _cell(figure: Mapping[str, Any] | None, share: bool) -> str:
    if not figure or figure["value"] is None:
        return "-"
    scale, digits = (100.0, 0) if share else (1.0, 1)
    text = f"{scale * figure['value']:.{digits}f}"
    if "low" in figure:
        text += f" ({scale * figure['low']:.{digits}f} to {scale * figure['high']:.{digits}f})"
    return f"{text} {FLAGGED}" if figure.get("flag") else text


def _plain(value: float | None, key: str) -> str:
    if value is None:
        return "-"
    return (
        f"{100 * value:.0f}"
        if key == "distinct_2"
        else f"{value:.1f}"
        if isinstance(value, float)
        else str(value)
    )
