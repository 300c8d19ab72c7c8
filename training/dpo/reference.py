"""Log-probabilities of answers, the policy's and those of a frozen reference before the first step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from training.data.packing import Layout, Tree, pack
from training.dpo.items import DpoItem
from training.models.logprobs import selected_logprobs, sum_by_branch
from training.run.runtime import Runtime
from training.supervised import micro_batches, share_out


def branch_logprobs(model: Any, trees: Sequence[Tree], layout: Layout) -> torch.Tensor:
    """Log-probability (K,) of every branch given its prefix, summed over its tokens."""
    packed = pack(trees, layout=layout).to(model.device)
    return sum_by_branch(selected_logprobs(model, packed), packed)


@torch.no_grad()
def with_reference(
    model: Any, items: Sequence[DpoItem], runtime: Runtime, *, layout: Layout, tokens: int
) -> list[DpoItem]:
    """The items with the log-probabilities of a frozen reference; processes share the work."""
    model.to(runtime.device).eval()
    whole = [
        item.with_branches(*item.tree.branches, item.mismatched) if item.mismatched else item
        for item in items
    ]
    numbered = {id(item): number for number, item in enumerate(whole)}
    mine: dict[int, list[float]] = {}
    share = share_out(whole, runtime.world, layout)[runtime.rank]
    for group in micro_batches(share, tokens, layout):
        with runtime.accelerator.autocast():
            found = branch_logprobs(model, [item.tree for item in group], layout).tolist()
        for item in group:
            size = len(item.tree.branches)
            mine[numbered[id(item)]], found = found[:size], found[size:]
    known = {number: values for part in runtime.gather(mine) for number, values in part.items()}
    return [
        replace(
            item,
            reference=tuple(values[: len(item.tree.branches)]),
            reference_mismatched=sum(values[len(item.tree.branches) :]),
        )
        for item, values in ((item, known[number]) for number, item in enumerate(items))
    ]
