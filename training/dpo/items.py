"""What direct preference optimisation learns from: pairs with their reference, and for KTO also lone answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from training.data.packing import Layout, Tree, pack
from training.data.pairs import PairItem
from training.models.logprobs import selected_logprobs, sum_by_branch
from training.run.runtime import Runtime
from training.supervised import micro_batches, share_out


@dataclass(frozen=True, kw_only=True)
class DpoItem:
    """A pair with the reference's log-probabilities of its chosen and rejected answer; a lone answer has one.

    For KTO also another prompt's answer put to this prompt, and the reference's log-probability of that. An answer
    weighs half, so that a pair weighs one.
    """

    id: str
    tree: Tree
    p: float
    reference: tuple[float, ...] = (0.0, 0.0)
    mismatched: tuple[int, ...] = ()
    reference_mismatched: float = 0.0

    @property
    def weight(self) -> float:
        return len(self.tree.branches) / 2

    def with_branches(self, *branches: tuple[int, ...]) -> DpoItem:
        """The same prompt with other answers."""
        return replace(self, tree=Tree(prefix=self.tree.prefix, branches=branches))


def make_items(pairs: Sequence[PairItem], *, mismatched: bool) -> list[DpoItem]:
    """Items without their reference; with `mismatched` each also gets the next other prompt's (chosen) answer.

    That answer is cut where it would make the longest sequence longer, as TRL cuts it at its `max_length`: the KL is
    then that of the answers' beginnings, and whatever context takes the data takes these too.
    """
    items = [DpoItem(id=pair.id, tree=pair.tree, p=pair.p) for pair in pairs]
    if not mismatched:
        return items
    longest = max(item.tree.width for item in items)
    found = []
    for index, item in enumerate(items):
        following = (items[(index + step) % len(items)] for step in range(1, len(items)))
        partner = next((q for q in following if q.tree.prefix != item.tree.prefix), item)
        other = partner.tree.branches[0][: longest - len(item.tree.prefix)]
        found.append(replace(item, mismatched=other))
    return found


def balanced_weights(items: Sequence[DpoItem]) -> tuple[float, float]:
    """KTO's weights of desirable and undesirable answers: 1 for the more frequent kind, and for the other as much
    more as makes both weigh alike, `λ_D·n_D = λ_U·n_U` (arXiv 2402.01306)."""
    desirable = sum(item.p if len(item.tree.branches) == 1 else 1.0 for item in items)
    undesirable = sum(len(item.tree.branches) for item in items) - desirable
    return _rarer(desirable, undesirable), _rarer(undesirable, desirable)


def _rarer(own: float, other: float) -> float:
    return max(1.0, other / own) if own else 1.0


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
