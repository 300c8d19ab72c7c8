"""Drawing the next token of many rows at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from engines.protocol import Sampling


def draw(logits: torch.Tensor, noise: torch.Tensor, sampling: Sampling) -> tuple[torch.Tensor, torch.Tensor]:
    """Next tokens and their log-probabilities.

    `logits` [B, V], `noise` [B] uniform in [0, 1) -> tokens [B] (int64), logprobs [B] (float32).

    The token is the inverse of the cumulative distribution at the row's own number, so what a row draws does
    not depend on which rows it shares the batch with.
    """
    logits = logits.float()
    if sampling.temperature not in (0, 1):
        logits = logits / sampling.temperature
    logprobs = logits.log_softmax(-1)
    if sampling.temperature == 0:
        tokens = logits.argmax(-1)
    else:
        probabilities = logprobs.exp()
        if sampling.min_p or sampling.top_k:
            probabilities = _likely(probabilities, sampling)
        if sampling.top_p < 1:
            probabilities = _nucleus(probabilities, sampling.top_p)
        # In float32 the running sum over a large vocabulary drifts by more than a rare token's probability.
        cumulative = probabilities.cumsum(-1, dtype=torch.float64)
        threshold = noise.double().unsqueeze(-1) * cumulative[:, -1:]
        tokens = torch.searchsorted(cumulative, threshold, right=True).squeeze(-1)
        tokens = tokens.clamp_max_(logits.shape[-1] - 1)
    return tokens, logprobs.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)


def _likely(probabilities: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Renormalised over the tokens that `min_p` and `top_k` leave, in vLLM's order: what a nucleus is cut from."""
    if sampling.min_p:
        floor = sampling.min_p * probabilities.amax(-1, keepdim=True)
        probabilities = probabilities.masked_fill(probabilities < floor, 0.0)
    if 0 < sampling.top_k < probabilities.shape[-1]:
        order = probabilities.argsort(stable=True, dim=-1, descending=True)[..., sampling.top_k :]
        probabilities = probabilities.scatter(-1, order, 0.0)
    return probabilities / probabilities.sum(-1, keepdim=True)


def _nucleus(probabilities: torch.Tensor, top_p: float) -> torch.Tensor:
    """Zero all but the most likely tokens that together reach `top_p` (Holtzman et al. 2020, nucleus sampling)."""
    ordered, order = probabilities.sort(-1, descending=True)
    before = ordered.cumsum(-1, dtype=torch.float64) - ordered
    return torch.zeros_like(probabilities).scatter_(-1, order, ordered.masked_fill(before >= top_p, 0.0))


def uniform(seed: int, rows: Sequence[int], steps: int) -> torch.Tensor:
    """Numbers in [0, 1), one for each of these rows and `steps` steps: (rows, steps), float32.

    Each depends on the seed, the row's number and the step alone, so that rows can be shared out among
    processes and sampled in any order. Mixed as in SplitMix64 (Steele et al. 2014).
    """
    with np.errstate(over="ignore"):
        row_R = _mix(_mix(np.array([seed % 2**64], dtype=np.uint64)) + np.array(rows, dtype=np.uint64))
        counter_T = np.arange(1, steps + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        bits_RT = _mix(row_R[:, None] + counter_T)
    return torch.from_numpy((bits_RT >> np.uint64(40)).astype(np.float32) * np.float32(2**-24))


def _mix(values: np.ndarray) -> np.ndarray:
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
