"""REINFORCE leave-one-out (Ahmadian et al. 2024, arXiv 2402.14740; Kool et al. 2019).

    python -m training.rloo --config rloo.yaml [--resume]

A response is one action: its reward, less beta times its KL to the reference, is compared with the mean of the
other responses to its prompt, and its probability ratio is that of the whole response.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

import torch

from training import cli
from training.config.rl import RLOOConfig
from training.rewards.compose import RewardFn
from training.rl import train as rl_loop
from training.rl.advantages import leave_one_out, whiten
from training.rl.algorithms import Algorithm, Minibatch
from training.rl.experience import Experience
from training.rl.objectives import clipped_policy_loss
from training.rl.update import Stats
from training.run.directory import TrainResult


class RLOO(Algorithm):
    """Leave-one-out baselines, KL in the reward, one ratio per response."""

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


def train(
    config: RLOOConfig,
    *,
    resume: bool = False,
    reward_functions: Mapping[str, RewardFn] | None = None,
) -> TrainResult:
    """Train and save a policy. Raises TrainingError, Diverged or Interrupted."""
    return rl_loop.train(config, RLOO(config), resume=resume, reward_functions=reward_functions)


if __name__ == "__main__":
    sys.exit(cli.main(RLOOConfig, train, "REINFORCE leave-one-out."))
