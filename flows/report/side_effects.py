"""The side effects that a run or a comparison brought along, as tables and sentences."""

from __future__ import annotations

from collections.abc import Mapping

from common.sections import Cell, Measure, Section
from flows.evaluation.effects import MIN_PROMPTS
from flows.evaluation.side_effects import Boilerplate, Diversity, EffectFigure, ModelEffects, SideEffects

FLAGGED = "▲"
_Figure = EffectFigure | Boilerplate | Diversity | None
_SHARES = {
    "refusals": "refused",
    "evasions": "evasive",
    "wrong": "false and sure",
    "repetition": "repeated 4-grams",
    "distinct_2": "different 2-grams",
}


def effect_section(watched: SideEffects | None, names: Mapping[str, str]) -> Section:
    """One row an effect: what it measures, each model's figure, and the threshold; flagged figures carry a mark.

    `names` are the models to show with the names that people read.
    """
    if watched is None:
        return Section()
    shown = {names[model]: watched.models[model] for model in names if model in watched.models}
    rows: list[list[Cell]] = [["measure", *shown, "flagged beyond"]]
    for key, effect in watched.effects.items():
        found = [_figure(one, key) for one in shown.values()]
        if any(f and (f.value is not None or getattr(f, "phrases", ())) for f in found):
            rows.append([effect.what, *(_cell(f, effect.share) for f in found), effect.rule])
    rows.append(["longest repeated run of words", *(one.longest_repeat for one in shown.values()), ""])
    rows.append(["compression ratio", *(Measure(one.compression) for one in shown.values()), ""])
    text = (
        f"Shares in % with 95% intervals. {names[watched.reference]} is what is normal; {FLAGGED} marks what lies "
        "beyond its threshold with its whole interval."
    )
    return Section(heading="Side effects", text=text, rows=rows, kind="effects")


def stretch_section(watched: SideEffects | None) -> Section:
    """One row a stretch of steps of reinforcement learning, with the names of what left the normal range."""
    headings = ["steps", "words", *_SHARES.values(), "most overused phrase", "flags"]
    rows: list[list[Cell]] = [[*headings]]
    for stretch in (watched.steps if watched else None) or ():
        phrase, flags = stretch.boilerplate, stretch.flags
        rows.append(
            [
                f"{stretch.first}-{stretch.last}",
                Measure(stretch.length),
                *(Measure(getattr(stretch, key), percent=True) for key in _SHARES),
                f"“{phrase.text}” in {100 * phrase.share:.0f}" if phrase else None,
                "too few prompts to tell" if flags is None else ", ".join(flags) or None,
            ]
        )
    text = "Along reinforcement learning, by stretches of steps; the first stretch is what is normal. Shares in %."
    return Section(text=text, rows=rows)


def effect_sentences(watched: SideEffects | None, model: str, name: str) -> list[str]:
    """What is to be said of one model: each flag with its figure and what is normal, or that there is none.

    Effects that too few prompts tell about are counted apart: nothing is known of them.
    """
    if watched is None or model not in watched.flags or model == watched.reference:
        return []
    flags = watched.flags[model]
    too_few = len(watched.too_few[model])
    enough = len(watched.models[model].effects) + 2 - too_few
    said = [f"Side effect in {name}: {flag}." for flag in flags]
    if not flags and enough:
        said.append(f"Side effects: none of {enough} left the normal range in {name}.")
    if too_few:
        said.append(f"Side effects in {name}: {too_few} not judged, on fewer than {MIN_PROMPTS} prompts.")
    return said


def _figure(model: ModelEffects, key: str) -> _Figure:
    own: dict[str, _Figure] = {"boilerplate": model.boilerplate, "distinct_2": model.distinct_2}
    return own.get(key) or model.effects.get(key)


def _cell(figure: _Figure, share: bool) -> str | None:
    if figure is None or figure.value is None:
        return None
    text = str(Measure(figure if isinstance(figure, EffectFigure) else figure.value, percent=share))
    change = figure.change if isinstance(figure, Diversity) else None
    if change and change.value is not None:
        value, low, high = change.scaled(100)
        text += f", in as many words {value:+.0f}% ({low:+.0f} to {high:+.0f})"
    return f"{text} {FLAGGED}" if figure.flag else text
