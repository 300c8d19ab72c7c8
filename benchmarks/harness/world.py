"""Prompts of the microworld, and the small model that answers them."""

from __future__ import annotations

import shutil
from pathlib import Path

from benchmarks.harness.machine import REPOSITORY

MODEL = REPOSITORY / "microworld" / "weights" / "base"


def prepare(folder: Path, count: int) -> None:
    """`prompts.jsonl`: prompts for reinforcement learning."""
    from microworld.data import WorldSizes, write_world

    sizes = WorldSizes(demonstrations=10, sl=10, rl=count, eval=10)
    paths = write_world(folder / "world", seed=0, sizes=sizes)
    shutil.copy(paths["prompts_rl"], folder / "prompts.jsonl")
