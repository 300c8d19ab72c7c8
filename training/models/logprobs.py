"""Logits and log-probabilities of chosen tokens only: the head never runs where no loss is taken."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from training.data.packing import Packed
from training.models.attention import model_inputs


def selected_logits(model: Any, packed: Packed, predictors_N: torch.Tensor) -> torch.Tensor:
    """Logits (N, V) at flat indices of a batch; the head sees only these hidden states.

    Whatever the model does to its logits afterwards (soft-capping, scaling) it still does.
    """
    with _head_sees_only(model, predictors_N):
        return model(**model_inputs(model, packed)).logits[0]


def selected_logprobs(model: Any, packed: Packed) -> torch.Tensor:
    """Log-probability (N,) in float32 of every branch token of a batch."""
    logits_NV = selected_logits(model, packed, packed.predictors_N)
    return -cross_entropy(logits_NV.float(), packed.targets_N, reduction="none")


def sum_by_branch(values_N: torch.Tensor, packed: Packed) -> torch.Tensor:
    """Sums (K,) of a per-token value over each branch."""
    sums = torch.zeros(len(packed.ends_K), dtype=values_N.dtype, device=values_N.device)
    return sums.index_add(0, packed.owners_N, values_N)


@contextmanager
def _head_sees_only(model: Any, predictors_N: torch.Tensor) -> Iterator[None]:
    def select(module: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        hidden_BTD = arguments[0]
        return (hidden_BTD.flatten(0, 1)[predictors_N][None], *arguments[1:])

    handle = model.get_output_embeddings().register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()
