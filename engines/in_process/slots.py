"""A preallocated KV cache of independent rows ("slots") for transformers models.

Row i holds a sequence of its own length from column 0 on. Live rows are always the first `live` ones: a
finished row is overwritten by the last live row, so that a step computes nothing for rows that are done and
every tensor it reads is a view.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers.cache_utils import Cache, CacheLayerMixin


@dataclass
class _Plan:
    """Where the next forward pass writes: set by the cache, read by its layers."""

    rows: torch.Tensor  # [n] slots
    columns: torch.Tensor | None  # [n] one column a row (a decoding step), or None (a prefill from column 0)
    copies: torch.Tensor | None  # [n] which prefilled sequence goes to each slot
    width: int  # columns in use after the pass


class _SlotLayer(CacheLayerMixin):
    is_sliding = False

    def __init__(self, slots: int, columns: int) -> None:
        super().__init__()
        self.shape = (slots, columns)
        self.plan: _Plan | None = None

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        slots, columns = self.shape
        self.keys = key_states.new_zeros(slots, key_states.shape[1], columns, key_states.shape[3])
        self.values = value_states.new_zeros(slots, value_states.shape[1], columns, value_states.shape[3])
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store [b, H, q, D] keys and values as planned; return what the queries may look at."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        plan = self.plan
        assert plan is not None and self.keys is not None and self.values is not None
        if plan.columns is None:
            length = key_states.shape[2]
            self.keys[plan.rows, :, :length] = key_states[plan.copies]
            self.values[plan.rows, :, :length] = value_states[plan.copies]
            return key_states, value_states
        self.keys[plan.rows, :, plan.columns] = key_states[:, :, 0]
        self.values[plan.rows, :, plan.columns] = value_states[:, :, 0]
        live = len(plan.rows)
        return self.keys[:live, :, : plan.width], self.values[:live, :, : plan.width]

    def move(self, source: torch.Tensor, target: torch.Tensor, width: int) -> None:
        if self.keys is not None and self.values is not None:
            self.keys[target, :, :width] = self.keys[source, :, :width]
            self.values[target, :, :width] = self.values[source, :, :width]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return query_length, 0

    def get_seq_length(self) -> int:
        # Positions are given explicitly, and a prefill starts at zero.
        return 0

    def get_max_length(self) -> int:
        return -1


class SlotCache(Cache):
    """KV cache of `slots` rows of at most `columns` tokens for a model of `layers` layers."""

    def __init__(self, *, layers: int, slots: int, columns: int) -> None:
        super().__init__(layers=[_SlotLayer(slots, columns) for _ in range(layers)])

    def plan_prefill(self, rows: torch.Tensor, copies: torch.Tensor) -> None:
        """The next pass fills columns 0.. of `rows`; sequence `copies[i]` of the pass goes to `rows[i]`."""
        self._plan(_Plan(rows=rows, columns=None, copies=copies, width=0))

    def plan_step(self, columns: torch.Tensor, width: int) -> None:
        """The next pass adds one token to each of the first rows, at `columns`; its queries look at `width` of them."""
        rows = torch.arange(len(columns), device=columns.device)
        self._plan(_Plan(rows=rows, columns=columns, copies=None, width=width))

    def move(self, source: torch.Tensor, target: torch.Tensor, width: int) -> None:
        """Copy the first `width` columns of the rows `source` over the rows `target`."""
        for layer in self.layers:
            layer.move(source, target, width)  # type: ignore[union-attr]

    def _plan(self, plan: _Plan) -> None:
        for layer in self.layers:
            layer.plan = plan  # type: ignore[union-attr]
