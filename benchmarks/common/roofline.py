"""What the work must cost: its floating-point operations, over the fastest matrix product of this machine."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Work:
    """Tokens through the layers and through the output head, and the sum of squared sequence lengths."""

    tokens: int
    head_tokens: int
    squares: int

    @classmethod
    def of_rows(cls, lengths: Iterable[int], head_tokens: int) -> Work:
        lengths = list(lengths)
        return cls(tokens=sum(lengths), head_tokens=head_tokens, squares=sum(n * n for n in lengths))


def flops(config: Any, work: Work, *, passes: float) -> float:
    """Operations of `passes` forward passes' worth (training: 3, with recomputation 4) of a Llama.

    Two per weight and token; attention over the causal half, of scores and of values.
    """
    d, ff = config.hidden_size, config.intermediate_size
    head = config.hidden_size // config.num_attention_heads
    kv = head * config.num_key_value_heads
    layer = d * d + 2 * d * kv + d * d + 3 * d * ff
    linear = 2 * config.num_hidden_layers * layer * work.tokens
    attention = 2 * config.num_hidden_layers * d * work.squares
    return passes * (linear + attention + 2 * d * config.vocab_size * work.head_tokens)


def matmul_peak(threads: int, seconds: float = 1.0) -> float:
    """The best float32 rate of a square product of 1,536, in operations a second."""
    import torch

    torch.set_num_threads(threads)
    a, b = torch.randn(1536, 1536), torch.randn(1536, 1536)
    best, until = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < until:
        began = time.perf_counter()
        torch.mm(a, b)
        best = min(best, time.perf_counter() - began)
    return 2 * 1536**3 / best
