"""The watch along reinforcement learning: cheap measures of the sampled answers, by stretches of steps.

Normal is the first stretch, in which the policy has hardly left the model it started from. Other prompts come at every
step, so the difference is not paired: its interval is Welch's, with normal quantiles.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from flows.evaluation.readings import Answered
from flows.evaluation.side_effects import EFFECTS, judged_benign
from flows.evaluation.texts import distinct, repeated_share, tokens

_Z = 1.959963984540054
_STRETCHES = 12
_KEYS = ("length", "refusals", "evasions", "wrong", "repetition")


def watch_steps(answers: Sequence[tuple[int, Answered]]) -> list[dict[str, Any]]:
    """`{"first", "last", "n", "<effect>": value, "distinct_2", "flags": [names]}` of at most twelve stretches.

    `answers` come with the step that they were sampled at. An effect that nothing tells about is None.
    """
    steps = sorted({step for step, _ in answers})
    size = max(1, math.ceil(len(steps) / _STRETCHES))
    found: list[dict[str, Any]] = []
    normal: dict[str, list[float]] | None = None
    for start in range(0, len(steps), size):
        stretch = set(steps[start : start + size])
        mine = [answer for step, answer in answers if step in stretch]
        values = _values(mine)
        normal = normal or values
        found.append(
            {
                "first": min(stretch),
                "last": max(stretch),
                "n": len(mine),
                **{key: sum(v) / len(v) if v else None for key, v in values.items()},
                "distinct_2": distinct([tokens(a.text) for a in mine]),
                "flags": _flags(values, normal) if found else [],
            }
        )
    return found


def _values(answers: Sequence[Answered]) -> dict[str, list[float]]:
    words = [tokens(a.text) for a in answers]
    return {
        "length": [float(len(found)) for found in words],
        "refusals": [float(a.refused) for a in judged_benign(answers)],
        "evasions": [float(a.evasive) for a in answers],
        "wrong": [float(a.wrong) for a in answers if a.wrong is not None],
        "repetition": [repeated_share(found) for found in words],
    }


def _flags(values: dict[str, list[float]], normal: dict[str, list[float]]) -> list[str]:
    names = []
    for effect in EFFECTS:
        mine, usual = values.get(effect.key, []), normal.get(effect.key, [])
        if effect.key not in _KEYS or not mine or not usual:
            continue
        (m, v), (m_ref, v_ref) = _moments(mine), _moments(usual)
        error = _Z * math.sqrt(v / len(mine) + v_ref / len(usual))
        scale = m_ref if effect.relative else 1.0
        if m - m_ref - error > effect.more * scale:
            names.append(effect.name)
        elif effect.less is not None and m - m_ref + error < -effect.less * scale:
            names.append(effect.less_name)
    return names


def _moments(values: Sequence[float]) -> tuple[float, float]:
    m = sum(values) / len(values)
    return m, sum((v - m) ** 2 for v in values) / max(1, len(values) - 1)
