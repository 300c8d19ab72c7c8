"""The trainers' knobs in a run's configuration: each trainer's own config, less what the pipeline fills in."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Discriminator, Field, Tag, model_validator

from flows.config.data import JudgeSection
from flows.config.fields import ConfigPath, ModelRef, Section, TemplatesRef, knobs
from training.config.rewards import (
    CheckerTerm,
    EnsembleTerm,
    ExactTerm,
    FunctionTerm,
    LengthTerm,
    NumericTerm,
    RegexTerm,
)
from training.config.rl import GRPOConfig, PPOConfig, RLOOConfig
from training.config.rl_sections import EarlyStoppingConfig
from training.config.supervised import DpoConfig, PreferenceLoss, RewardModelConfig, SftConfig

# Stand-ins for what the pipeline fills in.
_SHARED: dict[str, Any] = {"model": "-", "output_dir": "-", "seed": 0, "metadata": {}}
_SUPERVISED: dict[str, Any] = {**_SHARED, "data": ["-"]}
_LABELS = {"statuses": ("ok",), "max_not_ok": 1.0, "shares": None, "exam": None}
_RL: dict[str, Any] = {**_SHARED, "prompts": ["-"], "reward_model": "-"}
# What would read files that the pipeline does not know of is not offered here.
_NO_FILES = ("reference", "rewards", "pretrain", "early_stopping")


class HelpfulSFTSection(knobs(SftConfig, filled=_SUPERVISED)):  # type: ignore[misc]
    """Fine-tuning on demonstrations of a helpful-only assistant."""


class SLCAISection(knobs(SftConfig, filled={**_SUPERVISED, "train_on": "last"})):  # type: ignore[misc]
    """Fine-tuning on the revisions; the last turn of each example carries the loss."""

    start_from: Literal["base", "helpful_only"] = "base"
    """The model to start from; the paper starts from the pretrained one."""


class HumanPairs(Section):
    """Pairs that people have judged, mixed with the judge's labels (Bai et al. 2022, section 4.2)."""

    path: ConfigPath
    """JSONL (also .gz) or Parquet with prompt, chosen and rejected, or hh-rlhf's transcripts."""

    share: float = Field(gt=0, lt=1)
    """Their share of the training pairs; the larger side is thinned out until it fits."""


class RewardModelSection(knobs(RewardModelConfig, filled={**_SUPERVISED, **_LABELS})):  # type: ignore[misc]
    """The reward model, or several that are combined."""

    start_from: Literal["base", "helpful_only", "sl_cai"] = "sl_cai"
    """The model whose body the reward model starts from."""

    ensemble: int = Field(default=1, ge=1, le=16)
    """Train so many models that differ in their seed; `rl.reward.combine` says how they become one score."""

    dimensions: dict[str, float] = Field(default={})
    """One model (or ensemble) for each of these dimensions, from the labels whose principles are all of that
    dimension; the number is its weight in the reward. Empty: one model from all labels."""

    human: HumanPairs | None = None
    """People's pairs beside the judge's labels."""

    rewrites: bool = False
    """Learn from each first answer and its last revision too, the revision being the better one for certain."""

    @model_validator(mode="after")
    def _dimensions_are_of_labels(self) -> RewardModelSection:
        if self.dimensions and (self.human or self.rewrites):
            raise ValueError(
                "dimensions: human pairs and rewrites have none; use either them or `dimensions`"
            )
        return self


class JudgeReward(Section):
    """The judge of `judge` scores what the policy writes: direct RLAIF (Lee et al. 2023, section 2.2.2)."""

    weight: float = Field(default=1.0, gt=0)
    """The score is multiplied by this."""

    kind: Literal["pointwise", "pairwise"] = "pointwise"
    """pointwise: the expected mark from 1 to 10, scaled to between 0 and 1. pairwise, for judges that only compare:
    the log-odds, within 4, with which it prefers an answer to the SL-CAI model's own in the stage `pairs`."""

    principles: int = Field(default=1, ge=1, le=16)
    """Principles drawn for each prompt; the answers are averaged. pointwise takes one."""

    templates: TemplatesRef = "default"
    """Template set: default, microworld (pairwise), or a folder with pointwise.j2 or pairwise.j2."""

    @model_validator(mode="after")
    def _marks_take_one_principle(self) -> JudgeReward:
        if self.kind == "pointwise" and self.principles != 1:
            raise ValueError(f"principles: {self.principles} is for kind pairwise; pointwise takes one")
        return self


AddedTerm = Annotated[
    LengthTerm | ExactTerm | NumericTerm | RegexTerm | CheckerTerm | FunctionTerm, Field(discriminator="kind")
]


class RewardSection(Section):
    """What the reward is made of; the weighted parts are added up."""

    model: float = Field(default=1.0, ge=0)
    """Weight of the reward model (or ensemble, or of all dimensions); 0 leaves it out of the reward."""

    combine: Literal["mean", "min", "uncertainty"] = "mean"
    """How the members of an ensemble become one score: see `kind: ensemble` in docs/reinforcement.md."""

    penalty: float = EnsembleTerm.model_fields["penalty"].default
    """Weight of the members' variance under combine: uncertainty."""

    judge: JudgeReward | None = None
    """Direct RLAIF: the judge's own score as a part of the reward."""

    terms: tuple[AddedTerm, ...] = ()
    """Length penalties, checkers and functions, as in `rewards` of a trainer's config."""

    @model_validator(mode="after")
    def _something_is_rewarded(self) -> RewardSection:
        if not self.model and self.judge is None and not self.terms:
            raise ValueError("model: with weight 0 the reward needs `judge` or `terms`")
        return self


_GOLD = {"gold": {"kind": "regex", "pattern": "-"}, "prompts": ["-"]}


class EarlyStoppingSection(knobs(EarlyStoppingConfig, filled=_GOLD)):  # type: ignore[misc]
    """Stop when held-out gold falls while the proxy climbs, and keep the best policy. Exactly one gold judge.

    The held-out prompts are those of critique and revision, on which reinforcement learning never trains; the
    evaluation's stay unseen.
    """

    microworld: bool = False
    """The microworld's oracle."""

    model: ModelRef | None = None
    """A held-out, stronger reward model."""

    judge: JudgeSection | None = None
    """A held-out, stronger judge, which marks answers from 1 to 10 under the constitution."""

    people: bool = False
    """A reward model of people's verdicts in the run's ledger, on pairs that the run does not train on."""

    templates: str = "default"
    """The judge's template set: default, or a folder with pointwise.j2."""

    @model_validator(mode="after")
    def _one_gold(self) -> EarlyStoppingSection:
        given = [name for name in ("microworld", "model", "judge", "people") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(
                f"give one of microworld, model, judge and people (have {', '.join(given) or 'none'})"
            )
        return self


class PPOSection(knobs(PPOConfig, filled=_RL, without=_NO_FILES)):  # type: ignore[misc]
    """Proximal policy optimisation from the SL-CAI model, against the reward model."""

    method: Literal["ppo"] = "ppo"
    """ppo, grpo or rloo; or without a reward: dpo, robust, ipo, kto, orpo, simpo."""

    reward: RewardSection = RewardSection()
    """What the reward is made of."""

    early_stopping: EarlyStoppingSection | None = None
    """When to stop before the last step."""

    @model_validator(mode="after")
    def _value_model_has_a_trunk(self) -> PPOSection:
        if not self.reward.model and self.value.start_from == "reward_model":
            raise ValueError(
                "value.start_from: reward.model is 0, so there is none to start from; set it to policy"
            )
        return self


class GRPOSection(knobs(GRPOConfig, filled=_RL, without=_NO_FILES)):  # type: ignore[misc]
    """Group relative policy optimisation from the SL-CAI model."""

    method: Literal["grpo"]
    """The method."""

    reward: RewardSection = RewardSection()
    """What the reward is made of."""

    early_stopping: EarlyStoppingSection | None = None
    """When to stop before the last step."""


class RLOOSection(knobs(RLOOConfig, filled=_RL, without=_NO_FILES)):  # type: ignore[misc]
    """REINFORCE leave-one-out from the SL-CAI model."""

    method: Literal["rloo"]
    """The method."""

    reward: RewardSection = RewardSection()
    """What the reward is made of."""

    early_stopping: EarlyStoppingSection | None = None
    """When to stop before the last step."""


class PreferenceSection(
    knobs(DpoConfig, filled={**_SUPERVISED, **_LABELS}, without=("loss", "reference"), check=False),  # type: ignore[misc]
):
    """A policy straight from the labels, without a reward model: DPO and its relatives."""

    method: PreferenceLoss
    """The loss."""

    rewrites: bool = False
    """Learn from each first answer and its last revision too, the revision being the better one for certain."""

    @model_validator(mode="after")
    def _knobs_are_of_the_method(self) -> PreferenceSection:
        own = {
            name: getattr(self, name)
            for name in type(self).model_fields
            if name not in ("method", "rewrites")
        }
        DpoConfig.model_validate({**_SUPERVISED, **own, "loss": self.method})
        return self


_KIND_OF_METHOD = {
    **{name: name for name in ("ppo", "grpo", "rloo")},
    **dict.fromkeys(get_args(PreferenceLoss), "preference"),
}


def _kind(value: Any) -> str | None:
    method = value.get("method", "ppo") if isinstance(value, dict) else getattr(value, "method", None)
    return _KIND_OF_METHOD.get(method) if isinstance(method, str) else None


RLSection = Annotated[
    Annotated[PPOSection, Tag("ppo")]
    | Annotated[GRPOSection, Tag("grpo")]
    | Annotated[RLOOSection, Tag("rloo")]
    | Annotated[PreferenceSection, Tag("preference")],
    Discriminator(
        _kind,
        custom_error_type="unknown_method",
        custom_error_message=f"method is one of {', '.join(_KIND_OF_METHOD)}",
    ),
]
