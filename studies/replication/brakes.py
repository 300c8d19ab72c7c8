"""The brake on the microworld: runs made to over-optimise, and the demo's own, judged by gold on held-out prompts."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from common.statistics import wilson
from flows.stages.gold_model import LEAST_HELD_OUT, LEAST_RIGHT
from studies.replication.jobs import Study
from studies.replication.policies import learn
from studies.replication.reward_models import answers_of_all, fit, preferred
from studies.replication.world import paths, prompts, read_lines, settings, write_lines

_NEVER = 1_000_000
"""A patience that no run exhausts."""
_ORACLE = {"kind": "function", "name": "gold", "function": "flows.stages.early_stopping:microworld"}


def watched(
    study: Study,
    name: str,
    seed: int,
    *,
    every: int,
    limit: int,
    patience: int = _NEVER,
    gold: Mapping[str, Any] = _ORACLE,
    **changes: Any,
) -> dict[str, Any]:
    """PPO as the demo has it but for `changes`, under a brake that scores `limit` prompts every `every` steps; by
    default it watches to the end and never stops the run. The brake's own figures are in the unit of its `gold`."""
    where = paths(study, seed)
    held_out = study.work(name) / "held_out.jsonl"
    write_lines(held_out, _untrained(study, seed)[:limit])
    brake = {"gold": gold, "prompts": [str(held_out)], "limit": limit, "every": every, "patience": patience}
    terms = [{"kind": "model", "path": where["reward_model.model"]}]
    policy, asked = where["sl_cai.model"], Path(where["prompts.rl"])
    found = learn(study, name, seed, "ppo", policy, terms, asked, {**changes, "early_stopping": brake})
    evaluations = read_lines(study.work(name) / "model" / "early_stopping.jsonl")
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


def people_braked(
    study: Study, name: str, seed: int, *, verdicts: int, wrong: float, limit: int, **changes: Any
) -> dict[str, Any]:
    """The same with a model of people's verdicts as the brake's gold. So many pairs get one each, on prompts that
    neither the brake nor the policy's training has, from people who see it as the oracle does but for a share of
    `wrong` verdicts (Dubois et al. 2023, arXiv 2305.14387, and Coste et al. 2023 have 0.25). `taken` is 1.0 where the
    flow takes the model."""
    folder = study.work(name)
    write_lines(folder / "asked.jsonl", _untrained(study, seed)[limit:])
    pairs = _decided(study, seed, prompts(folder / "asked.jsonl"), wrong)
    write_lines(folder / "people.jsonl", random.Random(f"{seed}/shown").sample(pairs, verdicts))
    training = fit(study, seed, folder / "people.jsonl", folder / "gold", held_out=LEAST_HELD_OUT)
    right, n = training["eval_accuracy"], int(training["held_out_pairs"])
    told = {
        "accuracy": right,
        "held_out_pairs": n,
        "taken": float(wilson(round(right * n), n)[0] > LEAST_RIGHT),
    }
    gold = {"kind": "model", "name": "gold", "path": str(folder / "gold")}
    return {**braked(study, name, seed, limit=limit, gold=gold, **changes), "gold_model": told}


def _untrained(study: Study, seed: int) -> list[dict[str, Any]]:
    """The prompts on which no policy is trained, the brake's own first."""
    where = paths(study, seed)
    rows = [
        row
        for key in ("prompts.sl", "prompts.sl_benign")
        if key in where
        for row in read_lines(Path(where[key]))
    ]
    random.Random(f"{seed}/brake").shuffle(rows)
    return rows


def _decided(study: Study, seed: int, asked: Sequence[Any], wrong: float) -> list[dict[str, Any]]:
    """All pairs of different answers to each prompt that gold tells apart, and which one a person prefers."""
    rng, rows = random.Random(f"{seed}/people"), []
    for prompt, texts in zip(asked, answers_of_all(study, seed, asked, draw=6_000), strict=True):
        for n, (a, b) in enumerate(combinations(texts, 2)):
            p = preferred(prompt.prompt, a, b)
            if p == 0.5:
                continue
            if (p > 0.5) == (rng.random() < wrong):
                a, b = b, a
            rows.append({"id": f"{prompt.id}/{n}", "prompt": prompt.prompt, "chosen": a, "rejected": b})
    return rows
