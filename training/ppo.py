"""Proximal policy optimisation for language models (Schulman et al. 2017; Ziegler et al. 2019).

    python -m training.ppo --config ppo.yaml [--resume]

The reward of a token is minus beta times its KL to the reference, and the score of the whole response at its
last token. A value model with a trunk of its own gives the baseline, through generalised advantage estimation.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

import torch

from training import cli
from training.config.rl import PPOConfig
from training.rewards.compose import RewardFn
from training.rl import train as rl_loop
from training.rl.advantages import gae, token_rewards, whiten
from training.rl.algorithms import ActorCritic, Minibatch
from training.rl.experience import Experience
from training.rl.objectives import clipped_policy_loss, clipped_value_loss, kl_k1, kl_k3
from training.rl.update import Stats
from training.run.directory import TrainResult


class PPO(ActorCritic):
    """Token-level advantages against a value model."""

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


def train(
    config: PPOConfig,
    *,
    resume: bool = False,
    reward_functions: Mapping[str, RewardFn] | None = None,
) -> TrainResult:
    """Train and save a policy. Raises TrainingError, Diverged or Interrupted."""
    return rl_loop.train(config, PPO(config), resume=resume, reward_functions=reward_functions)


if __name__ == "__main__":
    sys.exit(cli.main(PPOConfig, train, "Proximal policy optimisation."))
