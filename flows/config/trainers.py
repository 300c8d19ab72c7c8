"""The trainers' knobs in a run's configuration.

The trainers' own configs live in modules that load torch, which a configuration must not; what they add to the
shared fields is repeated here, and a test holds the two together.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from flows.config.knobs import knobs
from training.config import SupervisedConfig
from training.rl_config import PPOConfig

# Stand-ins for what the pipeline fills in.
_SHARED: dict[str, Any] = {"model": "-", "output_dir": "-", "seed": 0, "metadata": {}}
_SUPERVISED: dict[str, Any] = {**_SHARED, "data": ["-"]}

_SupervisedKnobs: Any = knobs(SupervisedConfig, filled=_SUPERVISED)


class HelpfulSFTSection(_SupervisedKnobs):
    """Fine-tuning on demonstrations of a helpful-only assistant."""

    train_on: Literal["all", "last"] = "all"
    """Which assistant turns carry loss: all of them, or the last."""

    prompt_weight: float = Field(default=0.0, ge=0, le=1)
    """Loss weight of the tokens that no assistant wrote; models trained from scratch like 0.1."""


class SLCAISection(_SupervisedKnobs):
    """Fine-tuning on the revisions; the last turn of each example carries the loss."""

    start_from: Literal["base", "helpful_only"] = "base"
    """The model to start from; the paper starts from the pretrained one."""

    prompt_weight: float = Field(default=0.0, ge=0, le=1)
    """Loss weight of the tokens that no assistant wrote; models trained from scratch like 0.1."""


class RewardModelSection(_SupervisedKnobs):
    """The reward model."""

    start_from: Literal["base", "helpful_only", "sl_cai"] = "sl_cai"
    """The model whose body the reward model starts from."""

    held_out: float = Field(default=0.1, ge=0, le=0.5)
    """Share of the pairs kept out of training, for accuracy, calibration and normalisation."""

    targets: Literal["soft", "hard"] = "soft"
    """soft uses the labels' probabilities; hard rounds them to 0 or 1, and leaves out those of one half."""

    centring: float = Field(default=0.01, ge=0, le=10)
    """Weight of the squared sum of a pair's scores, which keeps scores around zero."""


_RL: dict[str, Any] = {**_SHARED, "prompts": ["-"], "reward_model": "-"}

# What would read files that the pipeline does not know of is not offered here.
_PPOKnobs: Any = knobs(PPOConfig, filled=_RL, without=("reference", "rewards", "pretrain"))


class RLSection(_PPOKnobs):
    """Proximal policy optimisation from the SL-CAI model, against the reward model."""
