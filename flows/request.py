"""What a person asks for when starting a run: the form of the flows and the options of the command line."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

StageName = Literal[
    "world",
    "prompts",
    "helpful_sft",
    "critique_revision",
    "sl_cai",
    "pairs",
    "labels",
    "reward_model",
    "rl",
    "evaluate",
]


class RunRequest(BaseModel):
    """One start of a run. What an earlier start finished and what has not changed is not done again."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    config: str = Field(
        default="configs/microworld.yaml",
        min_length=1,
        title="Configuration",
        description="A YAML file, on the machine that runs the flow.",
        json_schema_extra={"position": 0},
    )
    constitution: str | None = Field(
        default=None,
        title="Constitution",
        description="name@1.2.0, name@^1.2, a working file's name or a path; by default the configuration's.",
        json_schema_extra={"position": 1},
    )
    changes: tuple[str, ...] = Field(
        default=(),
        title="Changes to the configuration",
        description="Each one section.field=value, such as rl.steps=20.",
        json_schema_extra={"position": 2},
    )
    from_stage: StageName | None = Field(
        default=None,
        title="Run again from",
        description="This stage and all later ones run again although nothing changed.",
        json_schema_extra={"position": 3},
    )
    to_stage: StageName | None = Field(
        default=None,
        title="Stop after",
        description="The last stage to run; by default the evaluation.",
        json_schema_extra={"position": 4},
    )
