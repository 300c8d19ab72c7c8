"""What a reinforcement learning method is to the loop: advantages from rewards, and losses from advantages."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch

from training.rl.experience import Experience
from training.rl.update import Stats


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
