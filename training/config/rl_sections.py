"""Sections of the reinforcement learners' configs. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from training.config.base import OptimizerConfig, Strict
from training.config.rewards import RewardTerm


class KLConfig(Strict):
    """The KL penalty against the reference policy."""

    kind: Literal["fixed", "adaptive"] = "fixed"
    """fixed, or adaptive: a controller that steers the KL to a target (Ziegler et al. 2019)."""

    beta: float = Field(default=0.05, ge=0)
    """Coefficient of the KL divergence; where the adaptive controller starts."""

    target: float = Field(default=6.0, gt=0)
    """KL per response, in nats, that the adaptive controller aims at."""

    horizon: int = Field(default=10_000, ge=1)
    """Responses over which the adaptive controller corrects an error."""

    @model_validator(mode="after")
    def _beta_can_grow(self) -> KLConfig:
        if self.kind == "adaptive" and self.beta == 0:
            raise ValueError("kind: adaptive multiplies beta, and 0 would stay 0; start it above 0")
        return self


class RolloutsConfig(Strict):
    """Where answers are sampled."""

    kind: Literal["in_process", "vllm"] = "in_process"
    """in_process samples from the model being trained; vllm from a server that gets its weights each step."""

    batch_size: int = Field(default=128, ge=1, le=65_536)
    """Answers sampled at the same time in this process; bounds memory, does not change what is drawn."""

    url: str | None = Field(default=None, pattern=r"^https?://[^@\s]+$")
    """The vLLM server, started with VLLM_SERVER_DEV_MODE=1."""

    transfer: Literal["files", "nccl"] = "files"
    """How the server gets the weights: from files under output_dir, which it must see, or by NCCL from the GPU of
    the first process to its own."""

    @model_validator(mode="after")
    def _server_fits(self) -> RolloutsConfig:
        if (self.kind == "vllm") != (self.url is not None):
            raise ValueError("url belongs to kind: vllm, and kind: vllm needs one")
        if self.kind != "vllm" and self.transfer != "files":
            raise ValueError(f"transfer: {self.transfer} belongs to kind: vllm")
        return self


class PretrainConfig(Strict):
    """A pretraining mix against forgetting: PPO-ptx (Ouyang et al. 2022, arXiv 2203.02155, equation 2)."""

    data: tuple[Path, ...] = Field(min_length=1)
    """Files of `messages`; the loss is on every assistant turn."""

    coefficient: float = Field(default=1.0, gt=0)
    """Weight of the language-model loss beside the policy's."""

    batch_size: int = Field(default=16, ge=1)
    """Examples per optimiser update."""

    max_length: int = Field(default=2048, ge=8)
    """Longer examples are left out."""


class ValueConfig(Strict):
    """The value model."""

    start_from: Literal["reward_model", "policy"] = "reward_model"
    """Its trunk: the (first) reward model's with its head, or the policy's with a new head at zero."""

    optimizer: OptimizerConfig = OptimizerConfig()
    """Optimiser and schedule."""

    clip: float | None = Field(default=0.2, gt=0)
    """Values move at most this far from the sampling-time ones before their loss is clipped; null: no clip."""


LEAST_PROMPTS = 8
"""Fewer cannot tell a fall from noise."""


class EarlyStoppingConfig(Strict):
    """When to stop, and who says so."""

    gold: RewardTerm
    """The held-out judge of answers: a stronger reward model, a function, a checker; never part of `rewards`."""

    prompts: tuple[Path, ...] = Field(min_length=1)
    """Files of held-out prompts."""

    limit: int = Field(default=128, ge=LEAST_PROMPTS)
    """This many prompts from the beginning."""

    every: int = Field(default=5, ge=1)
    """Steps between evaluations."""

    patience: int = Field(default=2, ge=1)
    """Evaluations in a row that must find gold fallen."""

    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """How sure a whole run must be that what it takes for a fall is not noise."""
