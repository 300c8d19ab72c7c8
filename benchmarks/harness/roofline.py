"""What work must cost on this machine: its operations over the fastest matrix product, its bytes over the memory."""

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


def read_bandwidth(threads: int, seconds: float = 1.0) -> float:
    """The best rate of summing 256 MB, far more than a processor's cache, in bytes a second."""
    import torch

    torch.set_num_threads(threads)
    numbers = torch.zeros(2**26)
    best, until = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < until:
        began = time.perf_counter()
        numbers.sum()
        best = min(best, time.perf_counter() - began)
    return numbers.nbytes / best


def decoding_bytes(
    config: Any, prompts: Iterable[int], answers: Iterable[int], *, at_once: int
) -> tuple[int, int]:
    """Bytes that sampling in float32 reads: the weights once a step of `at_once` rows, and the cached keys and values.

    Token t of an answer looks back at its prompt and the t tokens before it (its own among them).
    """
    head = config.hidden_size // config.num_attention_heads
    a_token = 2 * 4 * config.num_hidden_layers * config.num_key_value_heads * head
    lengths = list(zip(prompts, answers, strict=True))
    cached = sum(answer * prompt + answer * (answer - 1) // 2 for prompt, answer in lengths)
    d, ff = config.hidden_size, config.intermediate_size
    layer = 2 * d * d + 2 * d * head * config.num_key_value_heads + 3 * d * ff
    weights = 4 * (config.num_hidden_layers * layer + d * config.vocab_size)
    return weights * -(-sum(answer for _, answer in lengths) // at_once), a_token * cached
