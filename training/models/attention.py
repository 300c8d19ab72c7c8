"""Attention for packed rows: linear layers see every token once, attention sees whole sequences.

All sequences of a batch lie end to end in one row; attention gathers them into padded blocks of like length
and runs the causal kernel without any mask. A prompt that answers share attends once, and the answers to it under a
mask, where that is less work than gathering it for each of them. Registered with transformers as `charter_packed`:
any decoder that lets transformers choose its attention function can use it, and a call without a plan is ordinary SDPA.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from engines.in_process.model import backbone
from training.data.packing import AttentionPlan, Layout, Packed, Tree, pack
from training.models import cpu_attention

NAME = "charter_packed"


def model_inputs(packed: Packed) -> dict[str, Any]:
    """Keyword arguments for a transformers decoder on which `choose_layout` was called."""
    inputs: dict[str, Any] = {
        "input_ids": packed.input_ids_BT,
        "position_ids": packed.position_ids_BT,
        "use_cache": False,
    }
    if packed.plan is not None:
        # transformers leaves a ready four-dimensional mask alone; without one it would build N x N.
        inputs |= {"attention_plan": packed.plan, "attention_mask": packed.real_BT[:1, None, None, :1]}
    return inputs


def choose_layout(model: Any) -> Layout:
    """Let `model` take packed rows if its hidden states are then the same as in separate rows.

    This is tried on a few tokens rather than guessed from the model's name: recurrent layers, relative biases,
    attention sinks and models with an attention of their own fail the trial and get `rows`.
    """
    config = model.config.get_text_config()
    if getattr(config, "attn_logit_softcapping", None):
        return "rows"
    before = config._attn_implementation
    trees = [
        Tree(
            prefix=tuple((7 * i + 3 * n + 1) % config.vocab_size for i in range(5)),
            branches=tuple(tuple((11 * i + 5 * b + n) % config.vocab_size for i in range(4)) for b in (1, 2)),
        )
        for n in range(2)
    ]
    expected = _branch_ends(model, trees, "rows")
    config._attn_implementation = NAME
    try:
        found = _branch_ends(model, trees, "packed")
        if torch.allclose(found, expected, rtol=1e-2, atol=1e-2 * float(expected.abs().max())):
            return "packed"
    except (RuntimeError, ValueError, TypeError, IndexError):
        pass  # a model that cannot take this form at all
    config._attn_implementation = before
    return "rows"


@torch.no_grad()
def _branch_ends(model: Any, trees: list[Tree], layout: Layout) -> torch.Tensor:
    training = model.training
    model.eval()
    try:
        packed = pack(trees, layout=layout).to(model.device)
        hidden = backbone(model)(**model_inputs(packed)).last_hidden_state
        return hidden.flatten(0, 1)[packed.ends_K].float()
    finally:
        model.train(training)


def packed_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    attention_plan: AttentionPlan | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each sequence of the plan; queries (1, H, N, D) to outputs (1, N, H, D)."""
    plan = attention_plan
    if plan is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **kwargs
        )
    dtype = query.dtype
    if query.device.type == "cpu":
        # The backward pass of the CPU's attention kernel is several times slower in bfloat16 than in float32.
        query, key, value = query.float(), key.float(), value.float()
    # Gathered once for all blocks: the backward pass then scatters each gradient once.
    queries = _gather(query, plan.queries_M, [rows * width for rows, width, _, _ in plan.shapes])
    keys, values = (
        _gather(states, plan.keys_L, [rows * depth for rows, _, depth, _ in plan.shapes])
        for states in (key, value)
    )
    offsets = plan.offsets_R.split([rows for rows, _, _, _ in plan.shapes])
    # Without gradients the fused kernel is as fast, and keeps nothing.
    by_products = (
        query.device.type == "cpu" and torch.is_grad_enabled() and query.requires_grad and not dropout
    )
    outputs = []
    with torch.autocast(query.device.type, enabled=False):
        for (rows, width, depth, shared), q, k, v, offsets_R in zip(
            plan.shapes, queries, keys, values, offsets, strict=True
        ):
            q = q.unflatten(0, (rows, width)).transpose(1, 2)
            k, v = (states.unflatten(0, (rows, depth)).transpose(1, 2) for states in (k, v))
            windowed = sliding_window is not None and depth > sliding_window
            mask = _mask(offsets_R, width, depth, sliding_window) if shared or windowed else None
            if by_products and depth in cpu_attention.LENGTHS:
                scale = q.shape[-1] ** -0.5 if scaling is None else scaling
                attended = cpu_attention.causal_attention(q, k, v, mask, scale)
            else:
                attended = F.scaled_dot_product_attention(
                    q,
                    k,
                    v,
                    attn_mask=mask,
                    is_causal=mask is None,
                    scale=scaling,
                    dropout_p=dropout,
                    enable_gqa=k.shape[1] != q.shape[1],
                )
            outputs.append(attended.transpose(1, 2).flatten(0, 1))
    return torch.cat(outputs).index_select(0, plan.select_N)[None].to(dtype), None


def _gather(states: torch.Tensor, places: torch.Tensor, sizes: Sequence[int]) -> tuple[torch.Tensor, ...]:
    """(1, H, N, D) to pieces (size, H, D)."""
    return states[0].transpose(0, 1).index_select(0, places).split(sizes)


def _mask(offsets_R: torch.Tensor, queries: int, keys: int, window: int | None) -> torch.Tensor:
    """True (R, 1, queries, keys) where a query may look: at most its own place, and the window's last tokens."""
    place = offsets_R[:, None, None, None] + torch.arange(queries, device=offsets_R.device)[:, None]
    key = torch.arange(keys, device=offsets_R.device)
    seen = key <= place
    return seen if window is None else seen & (key > place - window)


ALL_ATTENTION_FUNCTIONS.register(NAME, packed_attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, sdpa_mask)
