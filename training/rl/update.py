"""One optimiser update of the policy or the value model on a minibatch shared out among the processes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from training.config.base import OptimizerConfig
from training.data.packing import Layout
from training.run.optim import Optimizers, build_optimizer, clip_gradients
from training.run.runtime import Runtime
from training.supervised import micro_batches, share_out

Stats = dict[str, torch.Tensor]
# The loss of a group of items, such that the groups of a minibatch add up to the minibatch's, and
# statistics that add up likewise.
GroupLoss = Callable[[Any, Sequence[Any]], tuple[torch.Tensor, Stats]]


@dataclass(frozen=True, kw_only=True)
class Work:
    """Items of a minibatch, in micro-batches per process, and their loss."""

    items: Sequence[Any]
    loss: GroupLoss


class Trained:
    """A module with its optimiser."""

    def __init__(self, module: Any, config: OptimizerConfig, runtime: Runtime, *, tokens: int) -> None:
        self.layout: Layout = module.layout
        self.bare = module
        self.module = runtime.prepare(module)
        self.optimizer: Optimizers = build_optimizer(self.module, config)
        self.config = config
        self.runtime = runtime
        self.tokens = tokens

    def update(self, work: Sequence[Work], *, scale: float) -> dict[str, float]:
        """Add up the gradients of all work and step; gives the loss, statistics and the gradient's norm.

        Where one of them is not finite, the optimiser has not stepped.
        """
        runtime = self.runtime
        plan: list[tuple[GroupLoss, Sequence[Any], bool]] = []
        for part in work:
            shares = share_out(part.items, runtime.world, self.layout)
            groups = [micro_batches(share, self.tokens, self.layout) for share in shares]
            own = groups[runtime.rank]
            # Processes exchange gradients in step: one that has no more work takes part with a zero.
            for number in range(max(map(len, groups))):
                counted = number < len(own)
                plan.append((part.loss, own[number] if counted else list(part.items[:1]), counted))
        sums: dict[str, Any] = {}
        for number, (loss_of, group, counted) in enumerate(plan):
            last = number == len(plan) - 1
            with nullcontext() if last else runtime.accelerator.no_sync(self.module):
                loss, stats = loss_of(self.module, group)
                # Processes average their gradients, so each one's share is multiplied back.
                runtime.accelerator.backward(loss * (float(counted) * runtime.world))
            for name, value in {"loss": loss, **stats}.items():
                sums[name] = sums.get(name, 0.0) + float(counted) * value.detach()
        names = list(sums)
        row = dict(zip(names, runtime.sum([float(sums[name]) for name in names]), strict=True))
        row["grad_norm"] = clip_gradients(self.module, self.config.max_grad_norm)
        if math.isfinite(row["loss"]) and math.isfinite(row["grad_norm"]):
            self.optimizer.step(scale)
        self.optimizer.zero_grad()
        return row
