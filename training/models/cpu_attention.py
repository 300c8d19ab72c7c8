"""Attention for training on CPUs: plain matrix products over slices of queries.

The fused kernel's backward pass recomputes the probabilities in small tiles. Here they are kept from the forward pass:
on hh-rlhf's pairs a whole training step takes 8% less time (docs/log.md). Short sequences gain nothing, and the memory
that keeping costs grows with the square of the length, so both ends are left to the fused kernel.
"""

from __future__ import annotations

from typing import Any

import torch

LENGTHS = range(257, 1025)  # keys; beyond, the probabilities of a layer outgrow its other activations
_SLICE = 128  # queries; keys that come after a slice's last query are never touched


def causal_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scale: float,
) -> torch.Tensor:
    """Outputs (R, H, Q, D) of queries (R, H, Q, D) over keys and values (R, H, K, D), in float32.

    `mask` (R, 1, Q, K) is true where a query may look; without one Q = K, and each looks at itself and before.
    """
    copies = query.shape[1] // key.shape[1]
    if copies > 1:
        key, value = key.repeat_interleave(copies, 1), value.repeat_interleave(copies, 1)
    return _Attention.apply(query, key, value, None if mask is None else ~mask, scale)


def kept(queries: int, keys: int, *, causal: bool) -> int:
    """How many probabilities each head keeps for the backward pass of one sequence."""
    if keys not in LENGTHS:
        return 0
    return sum((last - first) * seen for first, last, seen in _slices(queries, keys, causal=causal))


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        hidden: torch.Tensor | None,
        scale: float,
    ) -> torch.Tensor:
        rows, heads, width, size = query.shape
        # R and H as one batch dimension, B.
        q = (query * scale).reshape(-1, width, size)
        k, v = (states.reshape(-1, states.shape[2], size) for states in (key, value))
        output = torch.empty_like(q)
        above = torch.ones(min(width, _SLICE), min(width, _SLICE), dtype=torch.bool).triu(1)
        kept = []
        for first, last, seen in _slices(width, k.shape[1], causal=hidden is None):
            scores = torch.bmm(q[:, first:last], k[:, :seen].mT)
            if hidden is None:
                scores[:, :, first:].masked_fill_(above[: last - first, : last - first], -torch.inf)
            else:
                scores.unflatten(0, (rows, heads)).masked_fill_(hidden[:, :, first:last], -torch.inf)
            probabilities = scores.softmax(-1)
            output[:, first:last] = torch.bmm(probabilities, v[:, :seen])
            kept.append(probabilities)
        ctx.save_for_backward(q, k, v, output, *kept)
        ctx.scale, ctx.causal, ctx.shapes = scale, hidden is None, (query.shape, key.shape)
        return output.view(query.shape)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        q, k, v, output, *kept = ctx.saved_tensors
        gradient = gradient.reshape(q.shape)
        # The softmax's gradient subtracts each query's sum of probability times its gradient, which is this.
        mean = (gradient * output).sum(-1, keepdim=True)
        of_q, of_k, of_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        slices = _slices(q.shape[1], k.shape[1], causal=ctx.causal)
        for (first, last, seen), probabilities in zip(slices, kept, strict=True):
            part = gradient[:, first:last]
            of_v[:, :seen] += torch.bmm(probabilities.mT, part)
            of_scores = torch.bmm(part, v[:, :seen].mT).sub_(mean[:, first:last]).mul_(probabilities)
            of_q[:, first:last] = torch.bmm(of_scores, k[:, :seen])
            of_k[:, :seen] += torch.bmm(of_scores.mT, q[:, first:last])
        query_shape, key_shape = ctx.shapes
        return of_q.mul_(ctx.scale).view(query_shape), of_k.view(key_shape), of_v.view(key_shape), None, None


def _slices(width: int, keys: int, *, causal: bool) -> list[tuple[int, int, int]]:
    """First and last query of each slice, and how many keys they may see."""
    found = []
    for first in range(0, width, _SLICE):
        last = min(first + _SLICE, width)
        found.append((first, last, last if causal else keys))
    return found
