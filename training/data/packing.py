"""Token trees and how they are laid out in a batch without wasted work.

A `Tree` is a prefix with any number of branches: a plain sequence has none, a preference pair has two answers
that continue one prompt, a group of samples has many. In the layout `packed` all trees lie end to end in one
row of N tokens: no padding, and a prefix that branches share is computed once (attention aside, see
`training.models.attention`). In the layout `rows` every sequence has its own right-padded row, which any model can
take. What a branch's tokens see, and so every loss, is the same in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

Layout = Literal["packed", "rows"]


@dataclass(frozen=True, kw_only=True)
class Tree:
    """Token ids of a prefix (not empty) and of the branches that continue it."""

    prefix: tuple[int, ...]
    branches: tuple[tuple[int, ...], ...] = ()

    def tokens(self, layout: Layout) -> int:
        """How many tokens a model computes for this tree, padding aside."""
        copies = 1 if layout == "packed" else self.rows
        return copies * len(self.prefix) + sum(map(len, self.branches))

    @property
    def rows(self) -> int:
        """How many rows the layout `rows` gives it."""
        return max(1, len(self.branches))

    @property
    def width(self) -> int:
        """Tokens of its longest row in the layout `rows`."""
        return len(self.prefix) + max(map(len, self.branches), default=0)


def attention_areas(tree: Tree) -> list[tuple[int, int, bool]]:
    """Queries and keys of each stretch that attends by itself in the layout `packed`, and whether it is causal."""
    found = _stretches(0, len(tree.prefix), [len(branch) for branch in tree.branches])
    return [(stretch.queries, stretch.keys, not stretch.shared) for stretch in found]


def batch_tokens(trees: Sequence[Tree], layout: Layout) -> int:
    """Tokens of one forward pass over `trees`, padding included."""
    if layout == "packed":
        return sum(tree.tokens(layout) for tree in trees)
    return sum(tree.rows for tree in trees) * max(tree.width for tree in trees)


@dataclass(frozen=True, kw_only=True)
class AttentionPlan:
    """Where attention finds its queries and keys in a row of N tokens.

    `queries_M` and `keys_L` pick the tokens of padded blocks, one block after the other (padding repeats a stretch's
    last token); `shapes` gives each block's rows, queries and keys a row, and whether its queries continue a shared
    prefix. Query i of a row may look at keys 0 .. i + its row's `offsets_R`: the prefix's length, or 0. `select_N`
    finds each of the N tokens among the M outputs.
    """

    queries_M: torch.Tensor
    keys_L: torch.Tensor
    offsets_R: torch.Tensor
    shapes: tuple[tuple[int, int, int, bool], ...]
    select_N: torch.Tensor

    def to(self, device: torch.device | str) -> AttentionPlan:
        moved = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, torch.Tensor)}
        return AttentionPlan(shapes=self.shapes, **moved)


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
        return Packed(plan=self.plan and self.plan.to(device), **moved)


def pack(trees: Sequence[Tree], *, layout: Layout, pad_id: int = 0) -> Packed:
    """Lay out trees. In `packed` the batch has one row (B = 1) and a plan; in `rows` a row per sequence."""
    return _pack_row(trees) if layout == "packed" else _pack_rows(trees, pad_id)


def _pack_row(trees: Sequence[Tree]) -> Packed:
    ids: list[int] = []
    positions: list[torch.Tensor] = []
    starts: list[int] = []
    stretches: list[_Stretch] = []
    predictors: list[torch.Tensor] = []
    targets: list[int] = []
    ends: list[int] = []
    for tree in trees:
        start, depth = len(ids), len(tree.prefix)
        starts.append(start)
        ids += tree.prefix
        positions.append(torch.arange(depth))
        stretches += _stretches(start, depth, [len(branch) for branch in tree.branches])
        for branch in tree.branches:
            at, size = len(ids), len(branch)
            predictors.append(_predictors(start + depth - 1, at, size))
            targets += branch
            ids += branch
            positions.append(torch.arange(depth, depth + size))
            ends.append(at + size - 1 if size else start + depth - 1)
    return Packed(
        input_ids_BT=torch.tensor(ids)[None],
        position_ids_BT=torch.cat(positions)[None],
        real_BT=torch.ones(1, len(ids), dtype=torch.bool),
        plan=_plan(stretches, len(ids)),
        starts=torch.tensor(starts),
        **_branch_tensors(trees, predictors, targets, ends),
    )


@dataclass(frozen=True, kw_only=True)
class _Stretch:
    """Tokens that attend together: a prefix and what follows it, by their places in the row.

    Where the prefix is `shared`, another stretch holds its queries, and this one has only those of `own`.
    """

    prefix: range
    own: range
    shared: bool = False

    @property
    def keys(self) -> int:
        return len(self.prefix) + len(self.own)

    @property
    def queries(self) -> int:
        return len(self.own) if self.shared else self.keys


def _stretches(start: int, depth: int, sizes: Sequence[int]) -> list[_Stretch]:
    """The attention of a tree whose prefix lies at `start`, its branches behind it."""
    prefix, at, branches = range(start, start + depth), start + depth, []
    for size in sizes:
        branches.append(range(at, at + size))
        at += size
    if not branches:
        return [_Stretch(prefix=range(0), own=prefix)]
    # The causal kernel skips what lies above the diagonal; under a mask nothing is skipped.
    apart = sum((depth + size) ** 2 / 2 for size in sizes)
    together = depth**2 / 2 + sum(size * (depth + size) for size in sizes)
    if apart <= together:
        return [_Stretch(prefix=prefix, own=own) for own in branches]
    shared = [_Stretch(prefix=prefix, own=own, shared=True) for own in branches if own]
    return [_Stretch(prefix=range(0), own=prefix), *shared]


def _plan(stretches: Sequence[_Stretch], tokens: int) -> AttentionPlan:
    # With numpy, whose small arrays cost less to make than tensors.
    queries: list[np.ndarray] = []
    keys: list[np.ndarray] = []
    offsets: list[int] = []
    shapes: list[tuple[int, int, int, bool]] = []
    select = np.empty(tokens, dtype=np.int64)
    numbered = 0
    for block in _blocks(stretches):
        shared = block[0].shared
        width, depth = max(s.queries for s in block), max(s.keys for s in block)
        for stretch in block:
            prefix, own = (np.arange(r.start, r.stop) for r in (stretch.prefix, stretch.own))
            both = np.concatenate([prefix, own])
            asked = own if shared else both
            # A prefix that several sequences hold is numbered by each of them, with equal values.
            select[asked] = np.arange(numbered, numbered + len(asked))
            queries += [asked, np.full(width - len(asked), both[-1])]
            keys += [both, np.full(depth - len(both), both[-1])]
            offsets.append(len(prefix) if shared else 0)
            numbered += width
        shapes.append((len(block), width, depth, shared))
    return AttentionPlan(
        queries_M=torch.from_numpy(np.concatenate(queries)),
        keys_L=torch.from_numpy(np.concatenate(keys)),
        offsets_R=torch.tensor(offsets),
        shapes=tuple(shapes),
        select_N=torch.from_numpy(select),
    )


def _blocks(stretches: Sequence[_Stretch]) -> list[list[_Stretch]]:
    """Stretches of one kind and of like size: attention costs its area, a block a few kernel launches."""
    blocks: list[list[_Stretch]] = []
    fewest = most = 0  # queries of the last block's stretches
    for stretch in sorted(stretches, key=lambda s: (s.shared, s.keys, s.queries)):
        first = blocks[-1][0] if blocks else None
        if (
            first is not None
            and stretch.shared == first.shared
            and stretch.keys <= 1.25 * first.keys + 4
            and max(most, stretch.queries) <= 1.5 * min(fewest, stretch.queries) + 8
        ):
            blocks[-1].append(stretch)
            fewest, most = min(fewest, stretch.queries), max(most, stretch.queries)
        else:
            blocks.append([stretch])
            fewest = most = stretch.queries
    return blocks


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
