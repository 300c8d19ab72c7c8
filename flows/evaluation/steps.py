"""The watch along reinforcement learning: cheap measures of the sampled answers, by stretches of steps.

Normal is the first stretch, in which the policy has hardly left the model it started from. Other prompts come at every
step, so the difference is not paired; that of lengths has Welch's interval.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from common.record import Record
from common.statistics import difference, t_quantile
from flows.evaluation.effects import BOILERPLATE, EFFECTS, MIN_PROMPTS, Effect
from flows.evaluation.phrases import overused
from flows.evaluation.readings import Answered, judged_benign
from flows.evaluation.texts import distinct, repeated_share, tokens

_STRETCHES = 12
_KEYS = ("length", "refusals", "evasions", "wrong", "repetition")


@dataclass(frozen=True, kw_only=True)
class StretchPhrase(Record):
    """The most overused phrase of a stretch, and the share of answers that hold it."""

    text: str
    share: float


@dataclass(frozen=True, kw_only=True)
class Stretch(Record):
    """The `n` answers sampled from step `first` to `last`: means, or None where nothing tells about an effect.

    `boilerplate` is the most overused phrase against the first stretch. `flags` are names; None where this stretch or
    the first has too few prompts to tell.
    """

    first: int
    last: int
    n: int
    length: float | None
    refusals: float | None
    evasions: float | None
    wrong: float | None
    repetition: float | None
    distinct_2: float | None
    boilerplate: StretchPhrase | None
    flags: tuple[str, ...] | None


def watch_steps(answers: Sequence[tuple[int, Answered]]) -> tuple[Stretch, ...]:
    """At most twelve stretches; `answers` come with the step that they were sampled at."""
    steps = sorted({step for step, _ in answers})
    size = max(1, math.ceil(len(steps) / _STRETCHES))
    found: list[Stretch] = []
    first: list[Answered] = []
    for start in range(0, len(steps), size):
        stretch = set(steps[start : start + size])
        mine = [answer for step, answer in answers if step in stretch]
        first = first or mine
        values = _values(mine)
        enough = min(len({a.prompt for a in side}) for side in (mine, first)) >= MIN_PROMPTS
        phrase = _phrase(mine, first) if found and enough else None
        flags = _flags(values, _values(first)) if found and enough else []
        found.append(
            Stretch(
                first=min(stretch),
                last=max(stretch),
                n=len(mine),
                **{key: _mean(_flat(v)) if v else None for key, v in values.items()},
                distinct_2=distinct([tokens(a.text) for a in mine]),
                boilerplate=phrase,
                flags=(*flags, *([BOILERPLATE.name] if phrase else [])) if enough else None,
            )
        )
    return tuple(found)


def _values(answers: Sequence[Answered]) -> dict[str, dict[str, list[float]]]:
    """Effect to prompt to the values of its answers: several answers to one prompt are not independent."""
    found: dict[str, dict[str, list[float]]] = {key: defaultdict(list) for key in _KEYS}
    for answer in answers:
        words = tokens(answer.text)
        found["length"][answer.prompt].append(float(len(words)))
        found["evasions"][answer.prompt].append(float(answer.evasive))
        found["repetition"][answer.prompt].append(repeated_share(words))
        if answer.wrong is not None:
            found["wrong"][answer.prompt].append(float(answer.wrong))
    for answer in judged_benign(answers):
        found["refusals"][answer.prompt].append(float(answer.refused))
    return found


def _phrase(answers: Sequence[Answered], first: Sequence[Answered]) -> StretchPhrase | None:
    """The most overused phrase on the prompts that should be answered."""
    assert BOILERPLATE.more is not None
    mine, normal = ([a.text for a in judged_benign(side)] for side in (answers, first))
    found = overused(mine, normal, excess=BOILERPLATE.more)
    return StretchPhrase(text=found[0].text, share=found[0].share) if found else None


def _flags(
    values: Mapping[str, Mapping[str, list[float]]], normal: Mapping[str, Mapping[str, list[float]]]
) -> list[str]:
    names = []
    for effect in EFFECTS:
        mine, usual = ([_mean(v) for v in side.get(effect.key, {}).values()] for side in (values, normal))
        if min(len(mine), len(usual)) < MIN_PROMPTS:
            continue
        if effect.more is not None and _beyond(effect, mine, usual, effect.more)[0] > 0:
            names.append(effect.name)
        elif effect.less is not None and _beyond(effect, mine, usual, -effect.less)[1] < 0:
            names.append(effect.less_name)
    return names


def _beyond(effect: Effect, mine: Sequence[float], usual: Sequence[float], by: float) -> tuple[float, float]:
    """The 95% interval of how far the mean lies above the usual one moved by the threshold."""
    if effect.share:
        _, low, high = difference(effect.estimate(mine), effect.estimate(usual)).scaled(1)
        return low - by, high - by
    moved = [(1 + by) * value if effect.relative else value + by for value in usual]
    gap = _mean(mine) - _mean(moved)
    parts = [_variance(side) / len(side) for side in (mine, moved)]
    if not sum(parts):
        return gap, gap
    freedom = sum(parts) ** 2 / sum(p**2 / (len(s) - 1) for p, s in zip(parts, (mine, moved), strict=True))
    error = t_quantile(freedom) * math.sqrt(sum(parts))
    return gap - error, gap + error


def _flat(values: Mapping[str, list[float]]) -> list[float]:
    return [value for found in values.values() for value in found]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _variance(values: Sequence[float]) -> float:
    m = _mean(values)
    return sum((v - m) ** 2 for v in values) / (len(values) - 1)
