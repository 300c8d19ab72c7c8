"""Attention for packed rows: linear layers see every token once, attention sees whole sequences.

All sequences of a batch lie end to end in one row; attention gathers them into padded blocks of like length
and runs the causal kernel without any mask. A prompt that answers share attends once, and the answers to it under a
mask, where that is less work than gathering it for each of them. Registered with transformers as `charter_packed`:
any decoder that lets transformers choose its attention function can use it, and a call without a plan is ordinary SDPA.
"""

from __future__ import annotations

import inspect
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
_LONGEST_TRIAL = 600
# What attention functions are given for caps, sinks and biases, none of which the packed one has.
_OTHER_KINDS = ("softcap", "s_aux", "position_bias", "head_mask")


def model_inputs(model: Any, packed: Packed) -> dict[str, Any]:
    """Keyword arguments for a transformers decoder on which `choose_layout` was called.

    A model without `position_ids` (ALiBi, recurrent layers) counts them itself, which is right for padded rows.
    """
    inputs: dict[str, Any] = {"input_ids": packed.input_ids_BT, "use_cache": False}
    if "position_ids" in inspect.signature(_inner(model).forward).parameters:
        inputs["position_ids"] = packed.position_ids_BT
    if packed.plan is not None:
        # transformers leaves a ready four-dimensional mask alone; without one it would build N x N.
        inputs |= {"attention_plan": packed.plan, "attention_mask": packed.real_BT[:1, None, None, :1]}
    return inputs


def choose_layout(model: Any) -> Layout:
    """Let `model` take packed rows if its hidden states are then the same as in separate rows.

    This is tried rather than guessed from the model's name, against the model's own forward pass: recurrent layers,
    relative biases, attention sinks, capped scores and models with an attention of their own fail the trial and get
    `rows`. Two answers share a prompt, a second pair lies beside them, and where the config has a window that a few
    hundred tokens overflow, the trial does.
    """
    config = model.config.get_text_config()
    before = config._attn_implementation
    width = _trial_width(config)
    if width is None:
        return "rows"
    trees, others = _trial(config.vocab_size, width, 0), _trial(config.vocab_size, width, 1)
    try:
        expected = _branch_ends(model, trees, "rows")
        config._attn_implementation = NAME
        found = _branch_ends(model, trees, "packed")
        # The same first tree beside another second one: nothing of a neighbour may be seen.
        beside = _branch_ends(model, [trees[0], others[1]], "packed")
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError, NotImplementedError):
        config._attn_implementation = before  # a model that cannot take this form at all
        return "rows"
    # Set against how far the hidden states of different sequences lie apart, not against their size.
    spread = float((expected - expected.mean(0)).abs().max())
    exact = 1e-4 if _precision(model) == torch.float32 else 3e-2
    if float((found - expected).abs().max()) <= exact * spread and torch.allclose(
        beside[:2], found[:2], rtol=0, atol=0.1 * exact * spread
    ):
        return "packed"
    config._attn_implementation = before
    return "rows"


def same_in_training(model: Any) -> bool:
    """Whether training mode gives the hidden states of evaluation mode, tried on a few tokens."""
    before, trees = model.training, _trial(model.config.get_text_config().vocab_size, 5, 0)
    states = []
    for mode in (True, False):
        model.train(mode)
        states.append(_branch_ends(model, trees, "rows", mode=mode))
    model.train(before)
    return torch.allclose(states[0], states[1], rtol=1e-3, atol=1e-3 * float(states[1].abs().max()))


def _precision(model: Any) -> torch.dtype:
    """The number format that the model's hidden states come in."""
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)


def _trial_width(config: Any) -> int | None:
    """Tokens of the trial's prompts, such that its windows overflow; None where no trial can tell."""
    windows = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
    narrow = [w for w in windows if isinstance(w, int)]
    kinds = set(getattr(config, "layer_types", None) or ())
    if any(w > _LONGEST_TRIAL for w in narrow) and kinds - {"full_attention", "sliding_attention"}:
        return None
    return max([5, *(w + 3 for w in narrow if w <= _LONGEST_TRIAL)])


def _trial(vocabulary: int, width: int, salt: int) -> list[Tree]:
    return [
        Tree(
            prefix=tuple((7 * i * (i + salt) + 3 * n + 1) % vocabulary for i in range(width)),
            branches=tuple(tuple((11 * i + 5 * b + n + salt) % vocabulary for i in range(4)) for b in (1, 2)),
        )
        for n in range(2)
    ]


def _inner(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


@torch.no_grad()
def _branch_ends(model: Any, trees: list[Tree], layout: Layout, *, mode: bool = False) -> torch.Tensor:
    training = model.training
    model.train(mode)
    try:
        packed = pack(trees, layout=layout).to(model.device)
        hidden = backbone(model)(**model_inputs(model, packed)).last_hidden_state
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
    unknown = [name for name in _OTHER_KINDS if kwargs.get(name) is not None]
    if plan is not None and unknown:
        raise TypeError(f"attention with {', '.join(unknown)} is not packed")
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
