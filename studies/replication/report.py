"""The documents and JSON files, written from rows alone; nothing in them is typed by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

from benchmarks.harness.machine import machine
from common.files import write_atomically
from studies.replication import claims as literature
from studies.replication import methods
from studies.replication.jobs import Study
from studies.replication.results import Claim, Results, table

_RULE = """The unit is the seed: a figure is a mean over seeds, as many as the column says, each with a world, samples
and training of its own, with the 95% interval of Student's t over them in brackets. Variants are compared within a
seed. A claim *holds* when its whole interval lies on the claimed side, *does not hold* when it lies on the other, and
else we *cannot tell*: three seeds tell only large and steady effects. Neither intervals nor verdicts are corrected for
the number of claims.
"""

_METHODS = """# What the methods learn

Does each method learn what it is for? Measured on the [microworld](microworld.md) by `make replication`, which writes
this page; its gold oracle scores answers to held-out prompts and is never trained on. Loops and losses:
[training.md](training.md), [reinforcement.md](reinforcement.md).

"""


def write_methods(results: Results, root: Path) -> list[Path]:
    """docs/methods.md and benchmarks/results/methods.json, from the rows that are there."""
    claims = methods.claims(results)
    parts = [_METHODS, _RULE, "\n", _claim_table([*claims, *methods.open_claims(claims)])]
    for heading, text in methods.tables(results):
        parts.append(f"\n## {heading}\n\n{fill(_NOTES[heading], 118)}\n\n{text}")
    parts.append(f"\n## How it was measured\n\n{_settings(results)}")
    paths = [root / "docs" / "methods.md", root / "benchmarks" / "results" / "methods.json"]
    _write(paths[0], "".join(parts))
    _write(paths[1], json.dumps(_record(results, claims), indent=1) + "\n")
    return paths


_REPLICATION = """# Claims of the literature, asked in the microworld

Which claims of *Constitutional AI* (Bai et al. 2022, arXiv 2212.08073) and *RLAIF vs. RLHF* (Lee et al. 2023, arXiv
2309.00267) hold in a world of two tiny models, short answers and an exact oracle? And which on over-optimisation (Gao
et al. 2022, arXiv 2210.10760; Coste et al. 2023, arXiv 2310.02743)? `make replication` asks them and writes this page.
What fails here may hold for large models, and the other way round.

"""


def write_replication(results: Results, study: Study, root: Path) -> list[Path]:
    """docs/replication.md and benchmarks/results/replication.json, from the rows that are there."""
    asked = literature.claims(results, study)
    found = [*asked, *literature.open_claims(asked)]
    rows = [[c.claim, c.source, c.result, _seeds(c), _shown(c)] for c in found]
    parts = [_REPLICATION, _RULE, "\n"]
    parts.append(table(["claim", "source", "measured here", "seeds", "verdict"], rows))
    for heading, text in literature.tables(results):
        parts.append(f"\n## {heading}\n\n{text}")
    parts.append(f"\nModels, prompts and settings are those of [methods.md](methods.md). {_CODE}\n")
    paths = [root / "docs" / "replication.md", root / "benchmarks" / "results" / "replication.json"]
    _write(paths[0], "".join(parts))
    _write(
        paths[1], json.dumps({"machine": machine(), "claims": [c.record() for c in asked]}, indent=1) + "\n"
    )
    return paths


_CHANGED = """Some were changed after seeds had been seen, so those seeds flatter them. From the seed that the table
names on, nothing was looked at before and each was run once.

- **GRPO** divided by each group's standard deviation, with 96 answers a step (12 prompts). Helpfulness fell by 9 to 40
  points on some seed whatever the penalty: beta 0.05 (69% on seed 1), 0.1 (58% on seed 4), 0.2 (36% on seed 4, where
  PPO kept 83% against the same reward model). The division gives a group whose answers hardly differ as much weight as
  any other. Without it (Dr. GRPO, Liu et al. 2025): 77% instead of 36% on seed 4 and 81% instead of 75% on seed 5, with
  the batch's deviation the same; twice the answers a step with it 69 and 67%, without it 78 and 81%.
- **RLOO** held on seeds 0 to 2 at beta 0.05 with 96 answers a step (24 prompts) and then left 32% helpful on seed 4; at
  0.2 81%, with twice the answers 79%. So three seeds were too few to tell that it holds.
- **Direct RLAIF**, GRPO at beta 0.1 as it was, draws two principles for a prompt (one at first; harmless 91, 92, 59%,
  helpful 79, 83, 65%). Head to head it meets GRPO with its own settings, `grpo.alike`.
- **Runs made to over-optimise** divided by the group's deviation too, until seeds 3 and 4 had been tried without. On
  the four seeds that had not, the worst case of three saved 2.8 points of the fall (-0.1 to 5.7).

Three seeds could not tell of DPO: it was run on more, unchanged."""
_CODE = "Each row's commit and seconds are in `benchmarks/results/methods.json`."
_NOTES = {
    "Reward models on held-out pairs": (
        "Pairs of answers to held-out prompts by SL-CAI, the helpful-only and the base model. Gold's probability of a "
        "pair is the weighted mean over the constitution's principles; accuracy counts the pairs where it is further "
        "than 0.25 from one half, the other columns count all. Labels of exactly one half have no hard form."
    ),
    "Policies on held-out prompts": (
        "Two answers to each held-out prompt at temperature 1. Harmless: share of harmful requests whose answer does "
        "no harm; helpful and refused: over harmless requests."
    ),
    "Runs made to over-optimise": (
        "GRPO without a KL penalty and without division by a group's deviation. Gold (the mean of six dimensions, %) "
        "and the proxy are of the prompts trained on, means over five steps; an ensemble's reward models differ in "
        "their seed. With the division the worst case of three saved 1.5 points of the fall (-3.7 to 6.7, five seeds): "
        "it pushes as hard where an ensemble is cautious."
    ),
    "Exact match on facts": (
        "GRPO with an exact-match checker on prompts about the facts of the training split: questions (what is it?) "
        "and opinions (I think it is so; am I right?), which are wrong in three of four. Two answers to each prompt."
    ),
}


def _claim_table(claims: Sequence[Claim]) -> str:
    rows = [[c.claim, c.result, _seeds(c), _shown(c)] for c in claims]
    return table(["claim", "measured", "seeds", "verdict"], rows)


def _seeds(claim: Claim) -> str:
    """How many seeds a claim rests on."""
    return str(min((len(e.values) for e in claim.estimates.values()), default="–"))


def _shown(claim: Claim) -> str:
    return f"**{claim.verdict}**" if claim.verdict else "not asked"


def _settings(results: Results) -> str:
    kinds: dict[str, dict[str, Any]] = {}
    for row in results.rows:
        kinds.setdefault(row["job"].rpartition("-")[0], row)
    lines = []
    for name, row in kinds.items():
        shown = {k: v for k, v in row["settings"].items() if k not in ("rewards", "method", "role", "start")}
        if shown and row["kind"] in ("reinforce", "prefer", "direct", "verify"):
            lines.append(f"- {name}: `{json.dumps(shown)}`")
    return (
        "Settings are the demo's (`configs/microworld.yaml`, in float32) but for the following, which were chosen\n"
        "beforehand or on seed 0 and left alone for the other seeds:\n\n"
        f"{chr(10).join(lines)}\n\n{_CHANGED}\n\n{_CODE}\n"
    )


def _record(results: Results, claims: Sequence[Claim]) -> dict[str, Any]:
    keep = ("job", "seed", "settings", "code", "seconds")
    rows = [{**{k: row[k] for k in keep}, "metrics": _short(row["metrics"])} for row in results.rows]
    return {"machine": machine(), "claims": [c.record() for c in claims], "rows": rows}


def _short(metrics: Any) -> Any:
    """Metrics without curves and paths, numbers rounded."""
    if isinstance(metrics, dict):
        if set(metrics) == {"value", "n", "low", "high"}:
            return _short(metrics["value"])
        return {k: _short(v) for k, v in metrics.items() if k not in ("curve", "paths", "stages", "training")}
    return round(metrics, 4) if isinstance(metrics, float) else metrics


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text)
