"""PPO, GRPO and RLOO side by side: advantages from rewards, and losses from advantages. All else is the same loop.

Shapes: R responses of a step, K of a part of a minibatch, T tokens of the longest, N response tokens end to end.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch

from training.config.rl import GRPOConfig, PPOConfig, RLConfig, RLOOConfig
from training.rl.experience import Experience
from training.rl.objectives import (
    clipped_policy_loss,
    clipped_value_loss,
    gae,
    group_relative,
    kl_k1,
    kl_k3,
    leave_one_out,
    token_rewards,
    token_weights,
    whiten,
)

Stats = dict[str, torch.Tensor]


class Minibatch:
    """The whole of which a loss sees a part: `responses` and their `tokens` over all processes."""

    def __init__(self, experience: Experience, indices: Sequence[int], beta: float) -> None:
        self.experience = experience
        self.beta = beta
        self.responses = len(indices)
        self.tokens = int(experience.mask_RT[list(indices)].sum())

    def part(self, values_RT: torch.Tensor, rows_K: torch.Tensor) -> torch.Tensor:
        """The entries (N,) of the tokens of these rows, end to end."""
        return values_RT[rows_K][self.experience.mask_RT[rows_K]]

    def lengths(self, rows_K: torch.Tensor) -> torch.Tensor:
        """Tokens (K,) of these rows."""
        return self.experience.mask_RT[rows_K].sum(1)


class Algorithm(ABC):
    """A method. Losses and statistics of a minibatch's parts add up to the minibatch's."""

    name: str

    @abstractmethod
    def advantages(self, experience: Experience, beta: float) -> dict[str, float]:
        """Set the experience's advantages (and returns, with a value model); gives metrics."""

    @abstractmethod
    def policy_loss(
        self, minibatch: Minibatch, rows_K: torch.Tensor, logprobs_N: torch.Tensor
    ) -> tuple[torch.Tensor, Stats]:
        """Loss and statistics of the responses `rows_K`, whose tokens now have these log-probabilities."""


class ActorCritic(Algorithm):
    """A method with a value model."""

    @abstractmethod
    def value_loss(
        self, minibatch: Minibatch, rows_K: torch.Tensor, values_N: torch.Tensor
    ) -> tuple[torch.Tensor, Stats]:
        """Loss and statistics of the responses `rows_K`, whose states now have these values."""


class PPO(ActorCritic):
    """Token-level advantages against a value model (Schulman et al. 2017, arXiv 1707.06347; Ziegler et al. 2019).

    The reward of a token is minus beta times its KL to the reference, and the score of the whole response at its last
    token. A value model with a trunk of its own gives the baseline, through generalised advantage estimation.
    """

    name = "PPO"

    def __init__(self, config: PPOConfig) -> None:
        self.config = config

    def advantages(self, experience: Experience, beta: float) -> dict[str, float]:
        mask_RT, values_RT = experience.mask_RT, experience.values_RT
        kl_RT = kl_k1(experience.logprobs_RT, experience.reference_RT)
        rewards_RT = token_rewards(experience.scores_R, kl_RT, mask_RT, beta)
        if self.config.whiten_rewards:
            rewards_RT = whiten(rewards_RT, mask_RT, shift_mean=False)
        advantages_RT, returns_RT = gae(
            rewards_RT, values_RT, mask_RT, gamma=self.config.gamma, lam=self.config.gae_lambda
        )
        experience.returns_RT = returns_RT
        experience.advantages_RT = advantages_RT
        if self.config.whiten_advantages:
            experience.advantages_RT = whiten(advantages_RT, mask_RT)
        returns, errors = returns_RT[mask_RT], (returns_RT - values_RT)[mask_RT]
        return {
            "value": float(values_RT[mask_RT].mean()),
            "return": float(returns.mean()),
            "explained_variance": float(
                1 - errors.var(unbiased=False) / returns.var(unbiased=False).clamp_min(1e-8)
            ),
        }

    def policy_loss(
        self, minibatch: Minibatch, rows_K: torch.Tensor, logprobs_N: torch.Tensor
    ) -> tuple[torch.Tensor, Stats]:
        old_N = minibatch.part(minibatch.experience.logprobs_RT, rows_K)
        loss_N, clipped_N = clipped_policy_loss(
            logprobs_N,
            old_N,
            minibatch.part(minibatch.experience.advantages_RT, rows_K),
            clip=self.config.clip,
            clip_high=self.config.clip_high,
        )
        with torch.no_grad():
            moved_N = kl_k3(old_N, logprobs_N)
        tokens = minibatch.tokens
        return loss_N.sum() / tokens, {
            "clip_fraction": clipped_N.sum() / tokens,
            "approx_kl": moved_N.sum() / tokens,
        }

    def value_loss(
        self, minibatch: Minibatch, rows_K: torch.Tensor, values_N: torch.Tensor
    ) -> tuple[torch.Tensor, Stats]:
        loss_N, clipped_N = clipped_value_loss(
            values_N,
            minibatch.part(minibatch.experience.values_RT, rows_K),
            minibatch.part(minibatch.experience.returns_RT, rows_K),
            clip=self.config.value.clip,
        )
        tokens = minibatch.tokens
        return loss_N.sum() / tokens, {"value_clip_fraction": clipped_N.sum() / tokens}


class GRPO(Algorithm):
    """Group-relative advantages, KL in the loss (Shao et al. 2024, arXiv 2402.03300).

    A response's advantage, one for all its tokens, is its reward relative to the other responses to its prompt; no
    value model.
    """

    name = "GRPO"

    def __init__(self, config: GRPOConfig) -> None:
        self.config = config

    def advantages(self, experience: Experience, beta: float) -> dict[str, float]:
        advantages_R = group_relative(experience.scores_R, experience.groups_R, scale=self.config.scale)
        experience.advantages_RT = advantages_R[:, None] * experience.mask_RT
        # Groups whose responses all have one reward teach nothing.
        return {"flat_advantages": float((advantages_R == 0).float().mean())}

    def policy_loss(
        self, minibatch: Minibatch, rows_K: torch.Tensor, logprobs_N: torch.Tensor
    ) -> tuple[torch.Tensor, Stats]:
        experience = minibatch.experience
        lengths_K = minibatch.lengths(rows_K)
        weights_N = token_weights(
            lengths_K,
            reduction=self.config.reduction,
            total_tokens=minibatch.tokens,
            responses=minibatch.responses,
            max_new_tokens=self.config.max_new_tokens,
        ).repeat_interleave(lengths_K)
        loss_N, clipped_N = clipped_policy_loss(
            logprobs_N,
            minibatch.part(experience.logprobs_RT, rows_K),
            minibatch.part(experience.advantages_RT, rows_K),
            clip=self.config.clip,
            clip_high=self.config.clip_high,
        )
        kl_N = kl_k3(logprobs_N, minibatch.part(experience.reference_RT, rows_K))
        loss = (weights_N * (loss_N + minibatch.beta * kl_N)).sum()
        return loss, {
            "clip_fraction": clipped_N.sum() / minibatch.tokens,
            "kl_loss": (weights_N * kl_N).sum().detach(),
        }


class RLOO(Algorithm):
    """Leave-one-out baselines, KL in the reward, one ratio per response (Ahmadian et al. 2024, arXiv 2402.14740; Kool
    et al. 2019).

    A response is one action: its reward, less beta times its KL to the reference, is compared with the mean of the
    other responses to its prompt, and its probability ratio is that of the whole response.
    """

    name = "RLOO"

    def __init__(self, config: RLOOConfig) -> None:
        self.config = config

    def advantages(self, experience: Experience, beta: float) -> dict[str, float]:
        scores_R = experience.scores_R - beta * experience.kl_R
        advantages_R = leave_one_out(scores_R, experience.groups_R)
        if self.config.whiten_advantages:
            advantages_R = whiten(advantages_R, torch.ones_like(advantages_R, dtype=torch.bool))
        experience.advantages_RT = advantages_R[:, None] * experience.mask_RT
        return {"flat_advantages": float((advantages_R == 0).float().mean())}

    def policy_loss(
        self, minibatch: Minibatch, rows_K: torch.Tensor, logprobs_N: torch.Tensor
    ) -> tuple[torch.Tensor, Stats]:
        experience = minibatch.experience
        moved_N = logprobs_N - minibatch.part(experience.logprobs_RT, rows_K)
        owners_N = torch.arange(len(rows_K), device=rows_K.device).repeat_interleave(
            minibatch.lengths(rows_K)
        )
        moved_K = torch.zeros(len(rows_K), device=moved_N.device).index_add(0, owners_N, moved_N)
        loss_K, clipped_K = clipped_policy_loss(
            moved_K,
            torch.zeros_like(moved_K),
            experience.advantages_RT[rows_K, 0],
            clip=self.config.clip,
            clip_high=self.config.clip_high,
        )
        return loss_K.sum() / minibatch.responses, {"clip_fraction": clipped_K.sum() / minibatch.responses}


ALGORITHMS: dict[type[RLConfig], Any] = {PPOConfig: PPO, GRPOConfig: GRPO, RLOOConfig: RLOO}


def algorithm_of(config: RLConfig) -> Algorithm:
    """The method that a config configures."""
    made: Algorithm = ALGORITHMS[type(config)](config)
    return made
