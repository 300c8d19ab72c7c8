"""Forward passes without padding: sequences laid end to end in one row, each attending to itself alone.

Linear layers, norms and heads, most of the work in short sequences, then see real tokens only. Attention runs
on padded blocks of sequences of like length. It is registered with transformers as `charter_varlen`, so any
decoder that lets transformers choose its attention function can be used, and gives the values of one padded
forward pass per sequence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NAME = "charter_varlen"


@dataclass(frozen=True, kw_only=True)
class Block:
    """Neighbouring sequences of like length. `pad` [rows * width] picks which of the block's tokens fill
    the padded block (padding repeats a sequence's last token); `unpad` picks the real ones back out."""

    rows: int
    width: int
    pad: torch.Tensor
    unpad: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class Packed:
    """Sequences end to end, shortest first.

    `ids`, `positions` [1, N]; `order[k]` is the original index of the k-th sequence in the row; `starts[i]`
    is where original sequence i begins.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    blocks: tuple[Block, ...]
    order: tuple[int, ...]
    starts: tuple[int, ...]


def pack(sequences: Sequence[Sequence[int]], *, device: torch.device | str = "cpu") -> Packed:
    """Lay token sequences (none empty) end to end."""
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
    lengths = [len(sequences[i]) for i in order]
    assert lengths and lengths[0] > 0
    starts = [0] * len(sequences)
    ids: list[int] = []
    for index in order:
        starts[index] = len(ids)
        ids.extend(sequences[index])
    positions = torch.cat([torch.arange(length) for length in lengths])
    blocks, first = [], 0
    for last in range(1, len(lengths) + 1):
        # Attention over padding costs the square of the length; a block costs a few kernel launches.
        if last < len(lengths) and lengths[last] <= 1.25 * lengths[first] + 4:
            continue
        blocks.append(_block(lengths[first:last], device))
        first = last
    return Packed(
        ids=torch.tensor(ids, dtype=torch.long, device=device).unsqueeze(0),
        positions=positions.to(device).unsqueeze(0),
        blocks=tuple(blocks),
        order=tuple(order),
        starts=tuple(starts),
    )


def forward(model: Any, packed: Packed, **kwargs: Any) -> Any:
    """`model(…)` on packed sequences; outputs have one row of N tokens, in the packed order."""
    with attention(model):
        return model(
            input_ids=packed.ids,
            position_ids=packed.positions,
            use_cache=False,
            varlen_blocks=packed.blocks,
            **kwargs,
        )


@contextmanager
def attention(model: Any) -> Iterator[None]:
    """Have `model` use the attention of this module while the context is open."""
    config = model.config.get_text_config()
    before = config._attn_implementation
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before


def _block(lengths: Sequence[int], device: torch.device | str) -> Block:
    rows, width = len(lengths), lengths[-1]
    length = torch.tensor(lengths)
    start = length.cumsum(0) - length
    column = torch.arange(width)
    real = column < length[:, None]
    pad = start[:, None] + torch.minimum(column, length[:, None] - 1)
    return Block(
        rows=rows,
        width=width,
        pad=pad.flatten().to(device),
        unpad=real.flatten().nonzero().squeeze(-1).to(device),
    )


def varlen_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    varlen_blocks: tuple[Block, ...],
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each sequence; [1, H, N, D] queries -> [1, N, H, D]."""
    dtype = query.dtype
    if query.device.type == "cpu":
        # The backward pass of CPU attention in bfloat16 takes several times as long as in float32.
        query, key, value = query.float(), key.float(), value.float()
    outputs = []
    sizes = [len(block.unpad) for block in varlen_blocks]
    # Split once: the backward pass of a split writes each gradient once.
    queries, keys, values = (states[0].transpose(0, 1).split(sizes, dim=0) for states in (query, key, value))
    with torch.autocast(query.device.type, enabled=False):
        for block, q, k, v in zip(varlen_blocks, queries, keys, values, strict=True):
            padded = F.scaled_dot_product_attention(
                _pad(q, block),
                _pad(k, block),
                _pad(v, block),
                is_causal=True,
                scale=scaling,
                dropout_p=dropout,
                enable_gqa=k.shape[1] != q.shape[1],
            )
            tokens = padded.transpose(1, 2).flatten(0, 1)
            outputs.append(tokens if len(block.unpad) == len(tokens) else tokens.index_select(0, block.unpad))
    return torch.cat(outputs).unsqueeze(0).to(dtype), None


def _pad(states: torch.Tensor, block: Block) -> torch.Tensor:
    """[n, H, D] -> [rows, H, width, D]"""
    picked = states if len(states) == len(block.pad) else states.index_select(0, block.pad)
    return picked.unflatten(0, (block.rows, block.width)).transpose(1, 2)


ALL_ATTENTION_FUNCTIONS.register(NAME, varlen_attention)
