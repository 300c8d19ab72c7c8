"""What a person asks for when starting a run: the form of the flows and the options of the command line."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from flows.config.fields import Form

StageName = Literal[
    "world",
    "prompts",
    "judge_exam",
    "helpful_sft",
    "critique_revision",
    "sl_cai",
    "pairs",
    "labels",
    "reward_model",
    "gold_model",
    "rl",
    "evaluate",
]


class RunRequest(Form):
    """One start of a run. What an earlier start finished and what has not changed is not done again."""

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


class RelabelRequest(Form):
    """The labels of a run under another version of its constitution."""

    config: str = Field(
        default="configs/microworld.yaml",
        min_length=1,
        title="Configuration",
        description="The run's YAML file, on the machine that runs the flow.",
        json_schema_extra={"position": 0},
    )
    constitution: str = Field(
        min_length=1,
        title="New constitution",
        description="name@1.2.0, name@^1.2, a working file's name or a path.",
        json_schema_extra={"position": 1},
    )
    changes: tuple[str, ...] = Field(
        default=(),
        title="Changes to the configuration",
        description="The same as the run was started with, each one section.field=value.",
        json_schema_extra={"position": 2},
    )


class RoundsRules(Form):
    """When iterated RLAIF stops, and what each round learns from."""

    rounds: int = Field(
        default=3,
        ge=1,
        le=50,
        title="Rounds at most",
        description="The first is the ordinary run; each later one samples pairs from the policy of the one before.",
        json_schema_extra={"position": 0},
    )
    learn_from: Literal["all rounds", "this round"] = Field(
        default="all rounds",
        title="The reward model learns from the labels of",
        description="It is trained anew in every round, on this round's labels alone or on earlier ones too.",
        json_schema_extra={"position": 1},
    )
    measure: Literal["gold or win rate", "win rate", "reward"] = Field(
        default="gold or win rate",
        title="Gain is measured by",
        description="gold, where there is one, else the share of held-out prompts whose new answer the judge prefers; "
        "reward is the round's own reward model, which is the proxy that was trained against.",
        json_schema_extra={"position": 2},
    )
    min_gain: float = Field(
        default=0.0,
        ge=-100,
        le=100,
        title="Stop without a gain above",
        description="In gold points, in win rate above one half, or in reward; below zero, a small loss is put up "
        "with. The last policy that gained is kept.",
        json_schema_extra={"position": 3},
    )
    kl_budget: float | None = Field(
        default=None,
        gt=0,
        title="KL budget",
        description="Nats per answer that the policy may move away from the SL-CAI model, over all rounds.",
        json_schema_extra={"position": 4},
    )


class SweepRange(Form):
    """The KL penalties that a sweep tries."""

    betas: tuple[Annotated[float, Field(ge=0, le=100)], ...] = Field(
        default=(0.0, 0.05, 0.1, 0.2, 0.4),
        min_length=2,
        title="Betas",
        description="Coefficients of the KL divergence to the SL-CAI model, one training of the policy each.",
        json_schema_extra={"position": 0},
    )
