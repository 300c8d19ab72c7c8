"""Token trees and how they are laid out in a batch without wasted work.

A `Tree` is a prefix with any number of branches: a plain sequence has none, a preference pair has two answers
that continue one prompt, a group of samples has many. In the layout `packed` all trees lie end to end in one
row of N tokens: no padding, and a prefix that branches share is computed once (attention aside, see
`training.attention`). In the layout `rows` every sequence has its own right-padded row, which any model can
take. What a branch's tokens see, and so every loss, is the same in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

Layout = Literal["packed", "rows"]


@dataclass(frozen=True, kw_only=True)
class Tree:
    """Token ids of a prefix (not empty) and of the branches that continue it."""

    prefix: tuple[int, ...]
    branches: tuple[tuple[int, ...], ...] = ()

    def tokens(self, layout: Layout) -> int:
        """How many tokens a model computes for this tree, padding aside."""
        copies = 1 if layout == "packed" else max(1, len(self.branches))
        return copies * len(self.prefix) + sum(map(len, self.branches))


@dataclass(frozen=True, kw_only=True)
class AttentionPlan:
    """Where attention finds its sequences in a row of N tokens.

    `gather_M` picks the tokens of padded blocks of sequences of like length, one block after the other (padding
    repeats a sequence's last token); `shapes` gives each block's (rows, width); `select_N` finds each of the
    row's tokens among the M outputs.
    """

    gather_M: torch.Tensor
    shapes: tuple[tuple[int, int], ...]
    select_N: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A batch of trees. Flat indices count through (B, T) row by row; K is the number of branches.

    `starts` gives the flat index of each tree's first token. `predictors_N` holds, for each branch token, the
    flat index of the token that predicts it, `targets_N` its id, `owners_N` the number of its branch counted
    through all trees in order; `ends_K` is the flat index of each branch's last token.
    """

    input_ids_BT: torch.Tensor
    position_ids_BT: torch.Tensor
    real_BT: torch.Tensor
    plan: AttentionPlan | None
    starts: torch.Tensor
    predictors_N: torch.Tensor
    targets_N: torch.Tensor
    owners_N: torch.Tensor
    ends_K: torch.Tensor

    def to(self, device: torch.device | str) -> Packed:
        moved = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, torch.Tensor)}
        plan = self.plan and replace(
            self.plan, gather_M=self.plan.gather_M.to(device), select_N=self.plan.select_N.to(device)
        )
        return Packed(plan=plan, **moved)


def pack(trees: Sequence[Tree], *, layout: Layout, pad_id: int = 0) -> Packed:
    """Lay out trees. In `packed` the batch has one row (B = 1) and a plan; in `rows` a row per sequence."""
    return _pack_row(trees) if layout == "packed" else _pack_rows(trees, pad_id)


def _pack_row(trees: Sequence[Tree]) -> Packed:
    ids: list[int] = []
    positions: list[torch.Tensor] = []
    starts: list[int] = []
    sequences: list[tuple[int, int, int, int]] = []  # start and length of a prefix, of its continuation
    predictors: list[torch.Tensor] = []
    targets: list[int] = []
    ends: list[int] = []
    for tree in trees:
        start, depth = len(ids), len(tree.prefix)
        starts.append(start)
        ids += tree.prefix
        positions.append(torch.arange(depth))
        if not tree.branches:
            sequences.append((start, depth, 0, 0))
        for branch in tree.branches:
            at, size = len(ids), len(branch)
            sequences.append((start, depth, at, size))
            predictors.append(_predictors(start + depth - 1, at, size))
            targets += branch
            ids += branch
            positions.append(torch.arange(depth, depth + size))
            ends.append(at + size - 1 if size else start + depth - 1)
    return Packed(
        input_ids_BT=torch.tensor(ids)[None],
        position_ids_BT=torch.cat(positions)[None],
        real_BT=torch.ones(1, len(ids), dtype=torch.bool),
        plan=_plan(sequences, len(ids)),
        starts=torch.tensor(starts),
        **_branch_tensors(trees, predictors, targets, ends),
    )


def _plan(sequences: Sequence[tuple[int, int, int, int]], tokens: int) -> AttentionPlan:
    order = sorted(sequences, key=lambda s: s[1] + s[3])
    gather: list[torch.Tensor] = []
    shapes: list[tuple[int, int]] = []
    select = torch.empty(tokens, dtype=torch.long)
    first = offset = 0
    for last in range(1, len(order) + 1):
        shortest = order[first][1] + order[first][3]
        # Attention over padding costs the square of the length; a block costs a few kernel launches.
        if last < len(order) and order[last][1] + order[last][3] <= 1.25 * shortest + 4:
            continue
        width = order[last - 1][1] + order[last - 1][3]
        for start, depth, at, size in order[first:last]:
            index = torch.cat([torch.arange(start, start + depth), torch.arange(at, at + size)])
            # A prefix that several sequences hold is written by each of them, with equal values.
            select[index] = torch.arange(offset, offset + depth + size)
            gather += [index, index[-1:].expand(width - depth - size)]
            offset += width
        shapes.append((last - first, width))
        first = last
    return AttentionPlan(gather_M=torch.cat(gather), shapes=tuple(shapes), select_N=select)


def _pack_rows(trees: Sequence[Tree], pad_id: int) -> Packed:
    sequences: list[tuple[int, ...]] = []
    starts: list[int] = []
    branches: list[tuple[int, int, int]] = []  # row, prefix length, branch length
    targets: list[int] = []
    for tree in trees:
        starts.append(len(sequences))
        if not tree.branches:
            sequences.append(tree.prefix)
        for branch in tree.branches:
            branches.append((len(sequences), len(tree.prefix), len(branch)))
            sequences.append(tree.prefix + branch)
            targets += branch
    width = max(map(len, sequences))
    ids = torch.full((len(sequences), width), pad_id)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.tensor(sequence)
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    places = [(row * width + depth, size) for row, depth, size in branches]
    return Packed(
        input_ids_BT=ids,
        position_ids_BT=torch.arange(width).repeat(len(sequences), 1),
        real_BT=torch.arange(width) < lengths[:, None],
        plan=None,
        starts=torch.tensor(starts) * width,
        **_branch_tensors(
            trees,
            [_predictors(at - 1, at, size) for at, size in places],
            targets,
            [at + size - 1 for at, size in places],
        ),
    )


def _predictors(prompt_end: int, at: int, size: int) -> torch.Tensor:
    index = torch.arange(at - 1, at + size - 1)
    if size:
        index[0] = prompt_end
    return index


def _branch_tensors(
    trees: Sequence[Tree], predictors: list[torch.Tensor], targets: list[int], ends: list[int]
) -> dict[str, torch.Tensor]:
    sizes = torch.tensor([len(branch) for tree in trees for branch in tree.branches], dtype=torch.long)
    return {
        "predictors_N": torch.cat(predictors) if predictors else torch.zeros(0, dtype=torch.long),
        "targets_N": torch.tensor(targets, dtype=torch.long),
        "owners_N": torch.repeat_interleave(torch.arange(len(sizes)), sizes),
        "ends_K": torch.tensor(ends, dtype=torch.long),
    }
