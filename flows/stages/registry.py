"""The stages of the pipeline, in order: each is one object, and this is the registry of all of them.

A new stage is a file here that makes a `Stage`, a line below, and its section of the configuration.
"""

from __future__ import annotations

from flows.config import RunConfig
from flows.stages import (
    critique_revision,
    evaluate,
    gold_model,
    improvement,
    judge_exam,
    labels,
    pairs,
    prompts,
    reward_model,
    rl,
    sft,
    world,
)
from flows.stages.contract import Stage

STAGES: tuple[Stage, ...] = (
    world.STAGE,
    prompts.STAGE,
    judge_exam.STAGE,
    sft.HELPFUL_SFT,
    critique_revision.STAGE,
    sft.SL_CAI,
    pairs.STAGE,
    labels.STAGE,
    reward_model.STAGE,
    gold_model.STAGE,
    rl.STAGE,
    evaluate.STAGE,
)
NAMES: tuple[str, ...] = tuple(stage.name for stage in STAGES)
MADE_BY: dict[str, str] = {stage.role: stage.name for stage in STAGES if stage.role}
"""The stage that makes the model of a role."""


def by_name(name: str) -> Stage:
    """The stage of that name; `gain` belongs to rounds, not to the pipeline."""
    return improvement.STAGE if name == improvement.STAGE.name else STAGES[NAMES.index(name)]


def active(config: RunConfig) -> list[Stage]:
    """The stages that a configuration asks for, in order."""
    return [stage for stage in STAGES if stage.active(config)]
