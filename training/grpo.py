"""Group relative policy optimisation (Shao et al. 2024, arXiv 2402.03300).

    python -m training.grpo --config grpo.yaml [--resume]

A response's advantage, one for all its tokens, is its reward relative to the other responses to its prompt;
the KL to the reference is a term of the loss.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

import torch

from training import cli
from training.config.rl import GRPOConfig
from training.rewards.compose import RewardFn
from training.rl import train as rl_loop
from training.rl.advantages import group_relative
from training.rl.algorithms import Algorithm, Minibatch
from training.rl.experience import Experience
from training.rl.objectives import clipped_policy_loss, kl_k3, token_weights
from training.rl.update import Stats
from training.run.directory import TrainResult


class GRPO(Algorithm):
    """Group-relative advantages, KL in the loss."""

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


def train(
    config: GRPOConfig,
    *,
    resume: bool = False,
    reward_functions: Mapping[str, RewardFn] | None = None,
) -> TrainResult:
    """Train and save a policy. Raises TrainingError, Diverged or Interrupted."""
    return rl_loop.train(config, GRPO(config), resume=resume, reward_functions=reward_functions)


if __name__ == "__main__":
    sys.exit(cli.main(GRPOConfig, train, "Group relative policy optimisation."))
