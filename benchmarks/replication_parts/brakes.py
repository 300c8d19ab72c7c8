"""The brake on the microworld: runs made to over-optimise, and the demo's own, judged by gold on held-out prompts."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from replication_parts.jobs import Study
from replication_parts.policies import learn
from replication_parts.world import paths, read_lines, settings, write_lines

_NEVER = 1_000_000
"""A patience that no run exhausts."""


def watched(
    study: Study, name: str, seed: int, *, every: int, limit: int, patience: int = _NEVER, **changes: Any
) -> dict[str, Any]:
    """PPO as the demo has it but for `changes`, under a brake that scores `limit` prompts every `every` steps; by
    default it watches to the end and never stops the run."""
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
    brake = {"gold": gold, "prompts": [str(held_out)], "limit": limit, "every": every, "patience": patience}
    terms = [{"kind": "model", "path": where["reward_model.model"]}]
    policy, asked = where["sl_cai.model"], Path(where["prompts.rl"])
    found = learn(study, name, seed, "ppo", policy, terms, asked, {**changes, "brake": brake})
    evaluations = read_lines(study.work(name) / "model" / "brake.jsonl")
    peak = max(evaluations, key=lambda row: row["gold"])
    last = evaluations[-1]["step"]
    ends = {"peak_step": peak["step"], "peak_gold": peak["gold"], "last_step": last}
    stopped = last < changes.get("steps", settings().rl.steps)
    return {**found, "brake": {**ends, "fired": float(stopped)}, "evaluations": evaluations}


def braked(study: Study, name: str, seed: int, *, unbraked: str, **changes: Any) -> dict[str, Any]:
    """The run of job `unbraked` with a brake that may stop it; and what gold says of the policy that it kept on prompts
    that it never saw, as a share of the peak that the other run reached on the brake's prompts."""
    found = watched(study, name, seed, **changes)
    peak = study.row(f"{unbraked}-{seed}")["metrics"]["brake"]["peak_gold"]
    kept = found["gold"]["overall"]["value"] / peak
    return {**found, "brake": {**found["brake"], "kept_to_peak": kept}}
