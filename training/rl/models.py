"""The models of a reinforcement learner: loaded, put into checkpoints, and put back."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from training.config.base import OptimizerConfig
from training.config.rl import PPOConfig, RLConfig
from training.data.packing import Layout
from training.models.adapters import make_trainable
from training.models.load import check_fit, load_causal_lm
from training.models.policy import PolicyModule, ValueModule, load_value_model, switch_dropout_off
from training.run.optim import Optimizers, build_optimizer, clip_gradients
from training.run.runtime import Runtime
from training.run.weights import load_optimizer, load_weights, optimizer_state, weights
from training.supervised import micro_batches, share_out

Stats = dict[str, torch.Tensor]


# The loss of a group of items, such that the groups of a minibatch add up to the minibatch's, and
# statistics that add up likewise.
GroupLoss = Callable[[Any, Sequence[Any]], tuple[torch.Tensor, Stats]]


@dataclass(frozen=True, kw_only=True)
class LossPart:
    """Items of a minibatch, in micro-batches per process, and their loss."""

    items: Sequence[Any]
    loss: GroupLoss


class TrainedModule:
    """A module with its optimiser."""

    def __init__(self, module: Any, config: OptimizerConfig, runtime: Runtime, *, tokens: int) -> None:
        self.layout: Layout = module.layout
        self.bare = module
        self.module = runtime.prepare(module)
        self.optimizer: Optimizers = build_optimizer(self.module, config)
        self.config = config
        self.runtime = runtime
        self.tokens = tokens

    def update(self, work: Sequence[LossPart], *, scale: float) -> dict[str, float]:
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


@dataclass(frozen=True, kw_only=True)
class Models:
    """What is trained, and what it is held to.

    `model` is the language model inside `policy`. `reference` is None under LoRA, where it is the policy with its
    adapter off; `value` is None except for PPO.
    """

    model: Any
    policy: TrainedModule
    reference: PolicyModule | None
    value: TrainedModule | None

    @classmethod
    def load(cls, config: RLConfig, runtime: Runtime, tokenizer: Any) -> Models:
        """Raises TrainingError when a model is unreadable or does not fit the tokenizer."""
        dtype = torch.bfloat16 if config.lora and config.bf16 else torch.float32
        model = load_causal_lm(config.model, dtype=dtype)
        check_fit(model, tokenizer, 0)
        reference = None
        if not config.lora:
            frozen = load_causal_lm(config.reference or config.model, trainable=False)
            reference = PolicyModule(frozen.to(runtime.device), temperature=config.temperature)
        model = make_trainable(model, config, task="CAUSAL_LM")
        switch_dropout_off(model)
        tokens = config.micro_batch_tokens
        policy = TrainedModule(
            PolicyModule(model, temperature=config.temperature), config.optimizer, runtime, tokens=tokens
        )
        value = None
        if isinstance(config, PPOConfig):
            trunk = ValueModule(load_value_model(config, tokenizer))
            value = TrainedModule(trunk, config.value.optimizer, runtime, tokens=tokens)
        return cls(model=model, policy=policy, reference=reference, value=value)

    def trees(self) -> dict[str, Any]:
        """Weights and optimiser states for a checkpoint. Every process must call this."""
        trees: dict[str, Any] = {
            "policy": weights(self.policy.module),
            "policy_optimizer": optimizer_state(self.policy.optimizer),
        }
        if self.value is not None:
            trees["value"] = weights(self.value.module)
            trees["value_optimizer"] = optimizer_state(self.value.optimizer)
        return trees

    def restore(self, saved: dict[str, Any]) -> None:
        """Put back what `trees` took. Raises TrainingError when it is of other models."""
        load_weights(self.policy.module, saved["policy"])
        load_optimizer(self.policy.module, self.policy.optimizer, saved["policy_optimizer"])
        if self.value is not None:
            load_weights(self.value.module, saved["value"])
            load_optimizer(self.value.module, self.value.optimizer, saved["value_optimizer"])
