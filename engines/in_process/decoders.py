"""A model's forward pass as sampling needs it: prompts into the cache, then one token a row.

`ModelDecoder` calls the transformers model. `LlamaDecoder` computes layers of Llama's form itself, around the model's
own linear layers (adapters and hooks on them included). A step of a small model is a few hundred short operations, and
much of what transformers does between the matrix products is the same work in smaller pieces, or for nobody: masks
made for each layer, norms in six passes, the last layer's output for prompt tokens of which only keys and values
are needed. What is left is close to what the products and the reading of keys and values take (docs/benchmarks.md).
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F

from engines.in_process.model import backbone
from engines.in_process.slots import SlotCache

# Rotary embeddings whose angles do not change as a text grows.
_FIXED_ROTARY = frozenset({"default", "linear", "llama3", "yarn"})


# Rows of a step that attend together come in eights, and what reading them apart costs, in cached tokens.
_SPAN, _SPAN_COST = 8, 256


class Decoder(Protocol):
    """One model over one cache."""

    def prefill(
        self, ids_BT: torch.Tensor, slots_N: torch.Tensor, copies_N: torch.Tensor, cache: SlotCache
    ) -> None:
        """Cache the keys and values of B prompts, padded on the right; prompt `copies_N[i]` goes to `slots_N[i]`."""
        ...

    def step(self, ids_B: torch.Tensor, columns_B: torch.Tensor, cache: SlotCache) -> torch.Tensor:
        """Logits (B, V) after one token a row, for the first B slots; `columns_B` is how many tokens each holds."""
        ...


def choose_decoder(model: Any, columns: int) -> Decoder:
    """The fast decoder where it gives this model's logits, which is tried on a few tokens; else the model itself.

    `columns` is the longest sequence to come.
    """
    general = ModelDecoder(model)
    # In reduced precision the products would round differently, and on GPUs it was not measured.
    if any(p.device.type != "cpu" or p.dtype != torch.float32 for p in model.parameters()):
        return general
    vocabulary = model.config.get_text_config().vocab_size
    ids = torch.tensor([[(7 * i + 3 * row + 1) % vocabulary for i in range(5)] for row in range(2)])
    try:
        fast = LlamaDecoder(model, max(columns, ids.shape[1]))
        expected, found = (last_logits(decoder, model, ids) for decoder in (general, fast))
    except (AttributeError, RuntimeError, ValueError, TypeError, IndexError):
        return general  # a model of another form
    close = torch.allclose(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    return fast if close else general


class ModelDecoder:
    """The model's own forward pass."""

    def __init__(self, model: Any) -> None:
        self.model = model
        parameters = inspect.signature(getattr(model, "get_base_model", lambda: model)().forward).parameters
        self.last_only = {"logits_to_keep": 1} if "logits_to_keep" in parameters else {}

    def prefill(
        self, ids_BT: torch.Tensor, slots_N: torch.Tensor, copies_N: torch.Tensor, cache: SlotCache
    ) -> None:
        cache.plan_prefill(slots_N, copies_N)
        # Causal attention alone hides the padding on the right from every real token.
        self.model(input_ids=ids_BT, past_key_values=cache, use_cache=True, **self.last_only)

    def step(self, ids_B: torch.Tensor, columns_B: torch.Tensor, cache: SlotCache) -> torch.Tensor:
        width = int(columns_B.max()) + 1
        cache.plan_step(columns_B, width)
        output = self.model(
            input_ids=ids_B[:, None],
            position_ids=columns_B[:, None],
            attention_mask=_seen(columns_B, width)[:, None, None, :],
            past_key_values=cache,
            use_cache=True,
        )
        return output.logits[:, -1]


class LlamaDecoder:
    """Root-mean-square norms, rotary positions, grouped queries, a feed-forward layer, residuals around both.

    In float32 on CPUs; `columns` is the longest sequence. Raises AttributeError for a model whose parts have other
    names than Llama's, ValueError for rotary embeddings that change with a text's length.
    """

    def __init__(self, model: Any, columns: int) -> None:
        trunk, config = backbone(model), model.config.get_text_config()
        if trunk.rotary_emb.rope_type not in _FIXED_ROTARY:
            raise ValueError(f"rotary embedding of type {trunk.rotary_emb.rope_type}")
        self.embed, self.layers, self.norm = trunk.embed_tokens, trunk.layers, trunk.norm
        self.output = model.get_output_embeddings()
        self.heads, self.groups = config.num_attention_heads, config.num_key_value_heads
        cos, sin = trunk.rotary_emb(torch.empty(1), torch.arange(columns)[None])
        half = cos.shape[-1] // 2
        self.turns_CD = torch.complex(cos[0, :, :half], sin[0, :, :half])

    def prefill(
        self, ids_BT: torch.Tensor, slots_N: torch.Tensor, copies_N: torch.Tensor, cache: SlotCache
    ) -> None:
        cache.plan_prefill(slots_N, copies_N)
        rows, width = ids_BT.shape
        turns = self.turns_CD[:width, None]
        hidden_ND = self.embed(ids_BT.flatten())
        for layer, stored in zip(self.layers, cache.layers, strict=True):
            attention = layer.self_attn
            normed_ND = _rms(hidden_ND, layer.input_layernorm)
            key, value = (
                project(normed_ND).view(rows, width, self.groups, -1)
                for project in (attention.k_proj, attention.v_proj)
            )
            key, value = _turn(key, turns).transpose(1, 2), value.transpose(1, 2)
            stored.update(key, value)  # type: ignore[union-attr]
            if layer is self.layers[-1]:
                return  # nothing reads its output
            query = attention.q_proj(normed_ND).view(rows, width, self.heads, -1)
            attended = F.scaled_dot_product_attention(
                _turn(query, turns).transpose(1, 2),
                key,
                value,
                is_causal=True,
                scale=attention.scaling,
                enable_gqa=self.heads != self.groups,
            )
            self._rest(layer, hidden_ND, attended.transpose(1, 2).reshape(rows * width, -1))

    def step(self, ids_B: torch.Tensor, columns_B: torch.Tensor, cache: SlotCache) -> torch.Tensor:
        rows, shared = len(ids_B), self.heads // self.groups
        turns = self.turns_CD[columns_B, None]
        parts = spans(columns_B.tolist())
        # A batch element of the products is one row's head of keys, with the queries that share it.
        masks = [
            torch.zeros(last - first, width)
            .masked_fill_(~_seen(columns_B[first:last], width), -torch.inf)
            .repeat_interleave(self.groups, 0)[:, None]
            .expand(-1, shared, -1)
            for first, last, width in parts
        ]
        cache.plan_step(columns_B, max(width for _, _, width in parts))
        hidden_BD = self.embed(ids_B)
        for layer, stored in zip(self.layers, cache.layers, strict=True):
            attention = layer.self_attn
            normed_BD = _rms(hidden_BD, layer.input_layernorm)
            query = _turn(attention.q_proj(normed_BD).view(rows, self.heads, -1), turns)
            key = _turn(attention.k_proj(normed_BD).view(rows, self.groups, -1), turns)
            value = attention.v_proj(normed_BD).view(rows, self.groups, -1)
            keys, values = stored.update(key[:, :, None], value[:, :, None])  # type: ignore[union-attr]
            query = query.view(rows, self.groups, shared, -1)
            attended = [
                _attend(
                    query[first:last],
                    keys[first:last, :, :width],
                    values[first:last, :, :width],
                    mask,
                    attention,
                )
                for (first, last, width), mask in zip(parts, masks, strict=True)
            ]
            self._rest(layer, hidden_BD, torch.cat(attended).view(rows, -1))
        return self.output(_rms(hidden_BD, self.norm)[:, None])[:, 0]

    @staticmethod
    def _rest(layer: Any, hidden_ND: torch.Tensor, attended_ND: torch.Tensor) -> None:
        """From attention's output to the end of a layer, in place."""
        hidden_ND += layer.self_attn.o_proj(attended_ND)
        hidden_ND += layer.mlp(_rms(hidden_ND, layer.post_attention_layernorm))


def spans(columns: Sequence[int]) -> list[tuple[int, int, int]]:
    """Consecutive rows that attend together: the first, the one after the last, and the columns that they read.

    Rows come with the longest about first, and each reads as many columns as the longest of its span.
    """
    found: list[tuple[int, int, int]] = []
    for first in range(0, len(columns), _SPAN):
        last = min(first + _SPAN, len(columns))
        width = max(columns[first:last]) + 1
        if found:
            start, _, before = found[-1]
            together = max(before, width)
            if (together - before) * (first - start) + (together - width) * (last - first) <= _SPAN_COST:
                found[-1] = (start, last, together)
                continue
        found.append((first, last, width))
    return found


def _seen(columns_B: torch.Tensor, width: int) -> torch.Tensor:
    """True (B, width) at the tokens that a row holds and the one being added."""
    return torch.arange(width, device=columns_B.device) <= columns_B[:, None]


def _attend(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, attention: Any
) -> torch.Tensor:
    """Outputs (R, heads, D) of one query (R, groups, heads / groups, D) a row over (R, groups, K, D).

    With one query a row, the fused kernel is slower than these products.
    """
    scores = torch.baddbmm(mask, query.flatten(0, 1), keys.flatten(0, 1).mT, alpha=attention.scaling)
    return torch.bmm(scores.softmax(-1), values.flatten(0, 1)).view(len(query), -1, query.shape[-1])


def _rms(states_ND: torch.Tensor, norm: Any) -> torch.Tensor:
    """Root-mean-square norm (Zhang and Sennrich 2019, arXiv 1910.07467, equation 4)."""
    return F.rms_norm(states_ND, norm.weight.shape, norm.weight, norm.variance_epsilon)


def _turn(states: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Rotary positions (Su et al. 2021, arXiv 2104.09864) as complex products.

    Pair i of a head, its units i and i + D/2, comes out side by side: all scores stay the same, since queries and
    keys are reordered alike.
    """
    first, second = states.chunk(2, -1)
    return torch.view_as_real(torch.complex(first, second).mul_(turns)).flatten(-2)


def last_logits(decoder: Decoder, model: Any, ids_BT: torch.Tensor) -> torch.Tensor:
    """Logits after the last token of each row, its first ones being a cached prompt."""
    rows, width = ids_BT.shape
    cache = SlotCache(layers=model.config.get_text_config().num_hidden_layers, slots=rows, columns=width)
    decoder.prefill(ids_BT[:, :-1], torch.arange(rows), torch.arange(rows), cache)
    return decoder.step(ids_BT[:, -1], torch.full((rows,), width - 1), cache)
