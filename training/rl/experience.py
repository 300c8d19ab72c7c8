"""A step's responses, how they are packed for a forward pass, and all that is measured on them before an update.

Shapes: R responses, T tokens of the longest, N response tokens laid end to end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed

from common.rows import Prompt
from engines.protocol import Completion
from training.config.rl import RLConfig
from training.data.packing import Layout, Packed, Tree, pack
from training.rl.models import Models
from training.run.runtime import Runtime
from training.supervised import micro_batches, share_out


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """A sampled response and its reward. `group` numbers the step's prompts; `parts` are the reward's. `answer` is the
    response without the thought before it, which no reward and no gold sees."""

    prompt: Prompt
    prompt_ids: tuple[int, ...]
    group: int
    completion: Completion
    answer: str
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


@torch.no_grad()
def measure(
    rollouts: list[Rollout], models: Models, runtime: Runtime, config: RLConfig, *, values: bool = True
) -> tuple[Experience, dict[str, float]]:
    """Log-probabilities under policy and reference, values (with `values`, where there is a value
    model), and what they say about the step.

    Without a reference model it is the policy with its adapter off.
    """
    policy, reference, value = models.policy, models.reference, models.value if values else None
    device = runtime.device
    mask_RT = response_mask(rollouts, device)
    rows = rows_of(rollouts)
    names = ("logprobs", "reference", "entropy", "values")
    found = {name: torch.zeros(mask_RT.shape, device=device) for name in names}
    shares = share_out(rows, runtime.world, policy.layout)
    groups = [micro_batches(share, config.micro_batch_tokens, policy.layout) for share in shares]
    own = groups[runtime.rank]
    for number in range(max(map(len, groups))):
        # Sharded processes exchange weights in step: one that has no more work takes part without counting.
        counted = number < len(own)
        group = own[number] if counted else rows[:1]
        packed, order = pack_rows(group, policy.layout, device)
        tokens = (packed, packed.predictors_N, packed.targets_N)
        logprobs_N, entropies_N = policy.bare(*tokens, entropy=True)
        if reference is None:
            with policy.bare.model.disable_adapter():
                reference_N, _ = policy.bare(*tokens)
        else:
            with runtime.accelerator.autocast():
                reference_N, _ = reference(*tokens)
        values_N = None
        if value is not None:
            if value.layout != policy.layout:
                packed, _ = pack_rows(group, value.layout, device)
            values_N = value.bare(packed, packed.predictors_N)
        for name, measured_N in zip(names, (logprobs_N, reference_N, entropies_N, values_N), strict=True):
            if counted and measured_N is not None:
                part_RT = torch.zeros((len(order), mask_RT.shape[1]), device=device)
                found[name][order] = part_RT.masked_scatter(mask_RT[order], measured_N.float())
    if runtime.world > 1:
        for tensor in found.values():
            torch.distributed.all_reduce(tensor)
    experience = Experience(
        rollouts=rollouts,
        mask_RT=mask_RT,
        scores_R=torch.tensor([shaped(rollout, config) for rollout in rollouts], device=device),
        groups_R=torch.tensor([rollout.group for rollout in rollouts], device=device),
        logprobs_RT=found["logprobs"],
        reference_RT=found["reference"],
        values_RT=found["values"],
    )
    return experience, _summary(experience, found["entropy"])


def shaped(rollout: Rollout, config: RLConfig) -> float:
    """The reward as the update sees it: clipped, and less the penalty for not ending."""
    score = rollout.reward
    if config.reward_clip is not None:
        score = max(-config.reward_clip, min(config.reward_clip, score))
    if config.missing_eos_penalty is not None and rollout.completion.finish_reason != "stop":
        score -= config.missing_eos_penalty
    return score


def _summary(experience: Experience, entropy_RT: torch.Tensor) -> dict[str, float]:
    rollouts = experience.rollouts
    rewards = torch.tensor([rollout.reward for rollout in rollouts])
    lengths = experience.mask_RT.sum(1).float()
    sampler = [p for rollout in rollouts for p in rollout.completion.logprobs]
    gap = experience.logprobs_RT[experience.mask_RT] - torch.tensor(sampler, device=experience.mask_RT.device)
    row = {
        "reward": float(rewards.mean()),
        "reward_std": float(rewards.std()) if len(rewards) > 1 else 0.0,
    }
    for name in rollouts[0].parts:
        if len(rollouts[0].parts) > 1:
            row[f"reward_{name}"] = sum(r.parts[name] or 0.0 for r in rollouts) / len(rollouts)
    return row | {
        "kl": float(experience.kl_R.mean()),
        "kl_per_token": float(experience.kl_R.sum() / lengths.sum()),
        "entropy": float(entropy_RT.sum() / lengths.sum()),
        "length": float(lengths.mean()),
        "truncated": sum(r.completion.finish_reason == "length" for r in rollouts) / len(rollouts),
        "sampler_gap": float(gap.abs().mean()),
    }
