"""Configs of the reinforcement learners: what PPO, GRPO and RLOO share, and what is each one's own.

Imports no torch, so that a config can be checked before anything heavy is loaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from training.config.base import TrainConfig
from training.config.rewards import EnsembleTerm, ModelTerm, RewardTerm, same_judge
from training.config.rl_sections import (
    EarlyStoppingConfig,
    KLConfig,
    PretrainConfig,
    RolloutsConfig,
    ValueConfig,
)


class RLConfig(TrainConfig):
    """The fields that all reinforcement learners share."""

    prompts: tuple[Path, ...] = Field(min_length=1)
    """Files of prompts: JSONL (also .gz) or Parquet with `prompt`, `id`, `meta`."""

    reward_model: str | None = None
    """A reward model's directory: short for one part of `rewards` of kind model."""

    rewards: tuple[RewardTerm, ...] = ()
    """The parts whose weighted sum is the reward."""

    reference: str | None = None
    """The reference policy; by default the model that training starts from."""

    steps: int = Field(default=100, ge=1)
    """Rounds of sampling and updating."""

    checkpoint_every: int = Field(default=10, ge=0)
    """Steps between checkpoints, and one after the last; 0 writes one only when stopped by a signal."""

    batch_size: int = Field(default=96, ge=1)
    """Responses per step, over all processes."""

    samples_per_prompt: int = Field(default=1, ge=1)
    """Responses sampled for each prompt of a step."""

    epochs: int = Field(default=1, ge=1, le=100)
    """Passes over a step's responses."""

    minibatches: int = Field(default=1, ge=1)
    """Optimiser updates per pass."""

    micro_batch_tokens: int = Field(default=16384, ge=16)
    """Most tokens (with padding) per forward pass on one device; more accumulates."""

    max_new_tokens: int = Field(default=64, ge=1, le=131_072)
    """Longest response in tokens, with its end."""

    temperature: float = Field(default=1.0, gt=0, le=100)
    """Sampling temperature; the policy that is trained is the one at this temperature."""

    top_p: float = Field(default=1.0, gt=0, le=1)
    """Sample from the smallest set of tokens with this much probability."""

    rollouts: RolloutsConfig = RolloutsConfig()
    """Where answers are sampled."""

    kl: KLConfig = KLConfig()
    """The KL penalty against the reference policy."""

    clip: float = Field(default=0.2, gt=0, lt=1)
    """The probability ratio is clipped to between 1 - clip and 1 + clip."""

    clip_high: float | None = Field(default=None, gt=0)
    """Another upper bound, 1 + clip_high (Yu et al. 2025, arXiv 2503.14476)."""

    reward_clip: float | None = Field(default=None, gt=0)
    """Rewards are clipped to this absolute value before anything else is added."""

    missing_eos_penalty: float | None = Field(default=None, ge=0)
    """Subtracted from the reward of a response that did not end by itself."""

    pretrain: PretrainConfig | None = None
    """Language-model examples mixed into every update."""

    max_kl: float | None = Field(default=None, gt=0)
    """Finish early, after a step whose KL per response exceeds this many nats."""

    divergence_kl: float = Field(default=10.0, gt=0)
    """Stop as diverged when the KL per token, in nats, is above this for three steps in a row."""

    early_stopping: EarlyStoppingConfig | None = None
    """Stop when held-out gold falls while the proxy climbs, and keep the best policy."""

    snapshot_every: int = Field(default=0, ge=0)
    """Keep the policy as it is every so many steps, in `snapshots/`; 0 keeps none."""

    log_samples: int = Field(default=16, ge=0)
    """Responses per step written to samples.jsonl."""

    @property
    def prompts_per_step(self) -> int:
        return self.batch_size // self.samples_per_prompt

    @property
    def terms(self) -> tuple[RewardTerm, ...]:
        """All parts of the reward, the short form included."""
        short = (ModelTerm(kind="model", path=self.reward_model),) if self.reward_model else ()
        return short + self.rewards

    @model_validator(mode="after")
    def _consistent(self) -> RLConfig:
        if not self.terms:
            raise ValueError("give reward_model or rewards: there is nothing to learn from")
        if self.batch_size % self.samples_per_prompt:
            raise ValueError(
                f"batch_size ({self.batch_size}) must be a multiple of "
                f"samples_per_prompt ({self.samples_per_prompt})"
            )
        if self.minibatches > self.batch_size:
            raise ValueError(
                f"minibatches ({self.minibatches}) must be at most batch_size ({self.batch_size})"
            )
        if self.lora and self.lora.dropout:
            raise ValueError(
                f"lora.dropout ({self.lora.dropout}) must be 0: with dropout the policy that is updated is not "
                "the one that was sampled"
            )
        if self.lora and self.reference:
            raise ValueError("reference: under lora the reference is the model with its adapter off")
        if self.early_stopping and any(same_judge(self.early_stopping.gold, term) for term in self.terms):
            raise ValueError(
                "early_stopping.gold is a part of rewards too; a judge that is trained on cannot hold out"
            )
        return self


class PPOConfig(RLConfig):
    """Proximal policy optimisation."""

    epochs: int = Field(default=2, ge=1, le=100)
    """Passes over a step's responses."""

    minibatches: int = Field(default=4, ge=1)
    """Optimiser updates per pass."""

    gamma: float = Field(default=1.0, gt=0, le=1)
    """Discount per token."""

    gae_lambda: float = Field(default=0.95, ge=0, le=1)
    """Decay of generalised advantage estimation."""

    whiten_rewards: bool = False
    """Scale a step's per-token rewards to unit variance, keeping their mean."""

    whiten_advantages: bool = True
    """Shift and scale a step's advantages to zero mean and unit variance."""

    value: ValueConfig = ValueConfig()
    """The value model."""

    @model_validator(mode="after")
    def _value_has_a_trunk(self) -> PPOConfig:
        models = any(isinstance(term, (ModelTerm, EnsembleTerm)) for term in self.terms)
        if self.value.start_from == "reward_model" and not models:
            raise ValueError("value.start_from: there is no reward model to start from; set it to policy")
        return self


class GRPOConfig(RLConfig):
    """Group relative policy optimisation."""

    samples_per_prompt: int = Field(default=8, ge=2)
    """Responses per prompt: the group that a response is compared with."""

    scale: Literal["group", "batch", "none"] = "group"
    """Divide advantages by the standard deviation of the group's rewards, of the batch's, or not at all."""

    reduction: Literal["sequence", "token", "constant"] = "sequence"
    """Average over a response's tokens and then responses (GRPO); over all tokens (DAPO); or divide by
    max_new_tokens whatever the length (Dr. GRPO)."""


class RLOOConfig(RLConfig):
    """REINFORCE leave-one-out."""

    samples_per_prompt: int = Field(default=4, ge=2)
    """Responses per prompt; the others' mean reward is a response's baseline."""

    whiten_advantages: bool = False
    """Shift and scale a step's advantages to zero mean and unit variance."""


METHODS: dict[str, type[RLConfig]] = {"ppo": PPOConfig, "grpo": GRPOConfig, "rloo": RLOOConfig}
"""What `method:` may say in a file for `python -m training.rl`."""
