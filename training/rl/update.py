"""The second half of a step: passes of minibatch updates over the responses that were sampled and measured."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from training.config.rl import RLConfig
from training.rl.algorithms import ActorCritic, Algorithm, Minibatch, Stats
from training.rl.experience import Experience, Row, pack_rows, rows_of
from training.rl.models import LossPart, Models, TrainedModule
from training.rl.pretrain_mix import PretrainMix
from training.run.optim import schedule
from training.run.stopping import stop_diverged


class PolicyUpdates:
    """Updates policy and value model. Which responses share a minibatch is fixed by the seed and the step."""

    def __init__(
        self, config: RLConfig, algorithm: Algorithm, models: Models, mix: PretrainMix | None
    ) -> None:
        self.config, self.algorithm, self.models, self.mix = config, algorithm, models, mix
        self.device = models.policy.runtime.device

    def run(self, experience: Experience, beta: float, step: int) -> dict[str, float]:
        """All updates of `step` (from 0); gives the mean over them of what was measured.

        Raises Diverged when a loss or a gradient is not finite.
        """
        config = self.config
        rows = rows_of(experience.rollouts)
        sums: dict[str, float] = {}
        updates = 0
        for epoch in range(config.epochs):
            order = list(range(len(rows)))
            random.Random(f"{config.seed}/{step}/{epoch}").shuffle(order)
            count = min(config.minibatches, len(order))
            for number in range(count):
                indices = order[number::count]
                minibatch = Minibatch(experience, indices, beta)
                items = [rows[index] for index in indices]
                update = (step * config.epochs + epoch) * config.minibatches + number
                found = self._update_policy(minibatch, items, step, update)
                if self.models.value is not None:
                    found |= self._update_value(self.models.value, minibatch, items, step)
                for name, value in found.items():
                    sums[name] = sums.get(name, 0.0) + value
                updates += 1
        return {name: value / updates for name, value in sums.items()}

    def _update_policy(
        self, minibatch: Minibatch, items: Sequence[Row], step: int, update: int
    ) -> dict[str, float]:
        policy, device = self.models.policy, self.device

        def loss(module: Any, group: Sequence[Row]) -> tuple[torch.Tensor, Stats]:
            packed, rows = pack_rows(group, policy.layout, device)
            logprobs_N, _ = module(packed, packed.predictors_N, packed.targets_N)
            return self.algorithm.policy_loss(minibatch, rows, logprobs_N)

        work = [LossPart(items=items, loss=loss)]
        if self.mix is not None:
            work.append(self.mix.work(update, policy.layout, device))
        found = policy.update(work, scale=schedule(step, self.config.steps, policy.config))
        self._stop_if_diverged("policy", found, minibatch, items, step)
        found["policy_loss"] = found.pop("loss")
        return found

    def _update_value(
        self, value: TrainedModule, minibatch: Minibatch, items: Sequence[Row], step: int
    ) -> dict[str, float]:
        algorithm = self.algorithm
        assert isinstance(algorithm, ActorCritic)

        def loss(module: Any, group: Sequence[Row]) -> tuple[torch.Tensor, Stats]:
            packed, rows = pack_rows(group, value.layout, self.device)
            return algorithm.value_loss(minibatch, rows, module(packed, packed.predictors_N))

        scale = schedule(step, self.config.steps, value.config)
        found = value.update([LossPart(items=items, loss=loss)], scale=scale)
        self._stop_if_diverged("value", found, minibatch, items, step)
        found["value_loss"], found["value_grad_norm"] = found.pop("loss"), found.pop("grad_norm")
        return found

    def _stop_if_diverged(
        self, which: str, found: Mapping[str, float], minibatch: Minibatch, items: Sequence[Row], step: int
    ) -> None:
        for name in ("loss", "grad_norm"):
            if not abs(found[name]) < float("inf"):
                batch = [minibatch.experience.rollouts[item.index].record() for item in items]
                problem = f"the {which}'s {name.replace('_', ' ')} is {found[name]}"
                stop_diverged(self.models.policy.runtime, self.config.output_dir, step + 1, problem, batch)
