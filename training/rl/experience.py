"""A step's responses with all that was measured on them, and how they are packed for a forward pass.

Shapes: R responses, T tokens of the longest, N response tokens laid end to end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from engines.protocol import Completion
from training.data.datasets import Prompt
from training.data.packing import Layout, Packed, Tree, pack


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """A sampled response and its reward. `group` numbers the step's prompts; `parts` are the reward's."""

    prompt: Prompt
    prompt_ids: tuple[int, ...]
    group: int
    completion: Completion
    reward: float
    parts: dict[str, float | None]

    @property
    def tree(self) -> Tree:
        return Tree(prefix=self.prompt_ids, branches=(self.completion.token_ids,))

    def record(self) -> dict[str, Any]:
        """As JSON, for a diverged batch."""
        return {
            "prompt_id": self.prompt.id,
            "prompt": self.prompt.prompt,
            "response": self.completion.text,
            "token_ids": list(self.completion.token_ids),
            "reward": self.reward,
        }


@dataclass(kw_only=True)
class Experience:
    """What an update learns from: the tensors are zero outside `mask_RT`."""

    rollouts: list[Rollout]
    mask_RT: torch.Tensor
    scores_R: torch.Tensor
    groups_R: torch.Tensor
    logprobs_RT: torch.Tensor
    reference_RT: torch.Tensor
    values_RT: torch.Tensor
    advantages_RT: torch.Tensor = field(init=False)
    returns_RT: torch.Tensor = field(init=False)

    @property
    def kl_R(self) -> torch.Tensor:
        """KL to the reference per response, in nats: the sum over its tokens of log p - log q."""
        return (self.logprobs_RT - self.reference_RT).sum(1)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A response as an item that batches are made of."""

    index: int
    tree: Tree


def rows_of(rollouts: Sequence[Rollout]) -> list[Row]:
    return [Row(index=index, tree=rollout.tree) for index, rollout in enumerate(rollouts)]


def pack_rows(rows: Sequence[Row], layout: Layout, device: Any) -> tuple[Packed, torch.Tensor]:
    """Pack responses, those to one prompt as one tree; also their indices in the packed order."""
    by_prompt: dict[tuple[int, ...], list[Row]] = {}
    for row in rows:
        by_prompt.setdefault(row.tree.prefix, []).append(row)
    trees = [
        Tree(prefix=prefix, branches=tuple(row.tree.branches[0] for row in members))
        for prefix, members in by_prompt.items()
    ]
    order = [row.index for members in by_prompt.values() for row in members]
    return pack(trees, layout=layout).to(device), torch.tensor(order, device=device)


def response_mask(rollouts: Sequence[Rollout], device: Any) -> torch.Tensor:
    """True (R, T) on each response's tokens."""
    lengths = torch.tensor([len(rollout.completion.token_ids) for rollout in rollouts], device=device)
    return torch.arange(int(lengths.max()), device=device) < lengths[:, None]
