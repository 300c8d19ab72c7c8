"""The brake on the microworld: runs made to over-optimise, and the demo's own, judged by gold on held-out prompts."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from replication_parts.jobs import Study
from replication_parts.policies import learn
from replication_parts.world import paths, read_lines, write_lines

_NEVER = 1_000_000
"""A patience that no run exhausts."""


def watched(
    study: Study, name: str, seed: int, *, every: int, limit: int, patience: int, **changes: Any
) -> dict[str, Any]:
    """PPO as the demo has it but for `changes`, evaluated every `every` steps by a brake that lets it run on.

    Where a brake of `patience` would have stopped it, and what it would have kept, follows from these evaluations:
    the rule looks back only, so the run with that brake is the beginning of this one.
    """
    where = paths(study, seed)
    rows = [
        row
        for key in ("prompts.sl", "prompts.sl_benign")
        if key in where
        for row in read_lines(Path(where[key]))
    ]
    random.Random(f"{seed}/brake").shuffle(rows)
    held_out = study.work(name) / "held_out.jsonl"
    write_lines(held_out, rows[:limit])
    gold = {"kind": "function", "name": "gold", "function": "flows.stages.brake:microworld"}
    brake = {"gold": gold, "prompts": [str(held_out)], "limit": limit, "every": every, "patience": _NEVER}
    terms = [{"kind": "model", "path": where["reward_model.model"]}]
    policy, asked = where["sl_cai.model"], Path(where["prompts.rl"])
    found = learn(study, name, seed, "ppo", policy, terms, asked, {**changes, "brake": brake})
    evaluations = read_lines(study.work(name) / "model" / "brake.jsonl")
    return {**found, "brake": outcome(evaluations, patience), "evaluations": evaluations}


def outcome(evaluations: Sequence[Mapping[str, Any]], patience: int) -> dict[str, Any]:
    """What a brake of `patience` makes of these evaluations: whether and when it stops, the gold of what it keeps,
    and gold's peak and end without it."""
    fallen = [row["fallen"] for row in evaluations]
    ends = [n for n in range(patience, len(fallen) + 1) if all(fallen[n - patience : n])]
    seen = evaluations[: ends[0]] if ends else evaluations
    kept, peak = (max(rows, key=lambda row: row["gold"]) for rows in (seen, evaluations))
    return {
        "fired": float(bool(ends)),
        "stop_step": seen[-1]["step"],
        "kept_step": kept["step"],
        "kept_gold": kept["gold"],
        "peak_step": peak["step"],
        "peak_gold": peak["gold"],
        "kept_to_peak": kept["gold"] / peak["gold"],
        "end_gold": evaluations[-1]["gold"],
        "end_proxy": evaluations[-1]["proxy"],
        "end_root_kl": evaluations[-1]["root_kl"],
    }
