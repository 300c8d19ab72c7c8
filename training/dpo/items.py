"""What direct preference optimisation learns from: pairs with their reference, and for KTO also lone answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from training.data.packing import Tree
from training.data.pairs import PairItem


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
