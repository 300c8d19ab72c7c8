"""The stages of the pipeline, in order. Each is a plain function of input paths and settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flows.stages import (
    critique_revision,
    evaluate,
    gold_model,
    helpful_sft,
    judge_exam,
    labels,
    pairs,
    prompts,
    reward_model,
    rl,
    sl_cai,
    world,
)
from flows.stages import improvement as gain
from flows.stages.contract import Stage

if TYPE_CHECKING:
    from flows.config import RunConfig

STAGES: tuple[Stage, ...] = (
    world.STAGE,
    prompts.STAGE,
    judge_exam.STAGE,
    helpful_sft.STAGE,
    critique_revision.STAGE,
    sl_cai.STAGE,
    pairs.STAGE,
    labels.STAGE,
    reward_model.STAGE,
    gold_model.STAGE,
    rl.STAGE,
    evaluate.STAGE,
)
NAMES: tuple[str, ...] = tuple(stage.name for stage in STAGES)


def by_name(name: str) -> Stage:
    """The stage of that name; `gain` belongs to rounds, not to the pipeline."""
    return gain.STAGE if name == gain.STAGE.name else STAGES[NAMES.index(name)]


def active(config: RunConfig) -> list[Stage]:
    """The stages that a configuration asks for, in order."""
    return [stage for stage in STAGES if stage.active(config)]
