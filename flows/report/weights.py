"""Where the weights of a run moved, as a table and a sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

Steps = Sequence[Mapping[str, Any]]
WHOLE = ("base", "rl_cai")
"""The step that is no training but the whole way."""
_KINDS = {
    "attention": "attention %",
    "mlp": "MLP %",
    "norms": "norms %",
    "embeddings": "embeddings %",
    "other": "other %",
}
_LEVEL = 0.05

SAID = (
    "The size of the change over the size of the weights before (Frobenius norms), in %. Depth: the rank correlation "
    "of a layer's number with its change, positive where later layers move more, and its p-value."
)


def weight_rows(steps: Steps, names: Mapping[str, str]) -> list[list[str]]:
    """One row a step: the change of all weights, by kind, of the first and the last layer; a heading alone for none.

    `names` are the names of the models that people read.
    """
    measured = [step for step in steps if step.get("layers")]
    kinds = [kind for kind in _KINDS if any(kind in step["kinds"] for step in measured)]
    rows = [["from, to", "all %", *(_KINDS[k] for k in kinds), "first layer %", "last layer %", "depth"]]
    for step in measured:
        layers = step["layers"]
        rows.append(
            [
                f"{names[step['from']]} → {names[step['to']]}",
                percent(step["total"]),
                *(percent(step["kinds"].get(kind)) for kind in kinds),
                *(percent(layers[place]["all"]) for place in (0, -1)),
                _depth(step["depth"]),
            ]
        )
    return rows


def weight_sentences(steps: Steps, names: Mapping[str, str]) -> list[str]:
    """Whether the later layers move most, training by training; and what could not be measured."""
    found = []
    trained = [step for step in steps if (step["from"], step["to"]) != WHOLE]
    said = [f"{names[step['to']]}: {_verdict(step)}" for step in trained if step.get("layers")]
    if said:
        found.append(f"Do the later layers move most? {'; '.join(said)}.")
    for step in trained:
        way = f"from {names[step['from']]} to {names[step['to']]}"
        if "problem" in step:
            found.append(f"Where the weights moved {way} is not measured: {step['problem']}.")
        elif step["left_out"]["n"]:
            first = step["left_out"]["first"][0]
            found.append(f"{step['left_out']['n']} tensors {way} are not measured ({first}).")
    return found


def _verdict(step: Mapping[str, Any]) -> str:
    """Yes, no, or why nobody can tell, for one step."""
    layers = [one for one in step["layers"] if one["all"] is not None]
    most = max(layers, key=lambda one: one["all"], default=None)
    depth = step["depth"]
    if most is None or depth["value"] is None:
        return f"no order among {len(layers)} layers"
    if 2 / math.factorial(depth["n"]) >= _LEVEL:
        answer = "too few layers to tell"
    elif depth["p"] >= _LEVEL:
        answer = "no clear order"
    else:
        answer = "yes" if depth["value"] > 0 else "no, the earlier ones do"
    place = f"most in layer {most['layer'] + 1} of {depth['n']}, {percent(most['all'])}%"
    return f"{answer} (rank correlation {_depth(depth)}; {place})"


def _depth(depth: Mapping[str, Any]) -> str:
    """ "+0.93, p 0.001", or "-" where there is none."""
    if depth["value"] is None:
        return "-"
    p = "p <0.001" if depth["p"] < 0.001 else f"p {depth['p']:.2g}"
    return f"{depth['value']:+.2f}, {p}"


def percent(value: float | None) -> str:
    """A share in per cent with three digits, "-" for none."""
    return "-" if value is None else f"{100 * value:.3g}"
