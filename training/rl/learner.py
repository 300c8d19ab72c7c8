"""A step of PPO, GRPO or RLOO on one page: sample, score, measure, advantages, update.

What a step does is fixed by the seed, its number and the weights alone, so that a resumed run repeats it. The methods
differ in an `Algorithm` (`algorithms.py`); the formulas are in `objectives.py`; steps in a row, checkpoints and early
stopping are in `train.py`. Left out of the methods as published: no replay of earlier steps' responses, no learnt
baseline for GRPO and RLOO, no reward or value heads on the policy's own trunk.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engines.protocol import Rollouts
from training.config.rewards import RewardTerm
from training.config.rl import RLConfig
from training.rewards.compose import Reward, RewardFn, build_reward
from training.rl.algorithms import Algorithm
from training.rl.experience import Experience, measure
from training.rl.models import Models
from training.rl.objectives import KLController
from training.rl.pretrain_mix import PretrainMix
from training.rl.rollout import Collector
from training.rl.update import PolicyUpdates
from training.run.optim import schedule
from training.run.runtime import Runtime
from training.run.stopping import KLGuard, stop_diverged

TIMINGS = frozenset({"seconds", "rollout_seconds", "samples_per_second", "tokens_per_second"})


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What a step learnt from, and its metrics."""

    experience: Experience
    metrics: dict[str, float]


class Learner:
    """The models of a run, and what a step does with them."""

    def __init__(
        self,
        config: RLConfig,
        algorithm: Algorithm,
        runtime: Runtime,
        tokenizer: Any,
        prompts: list[Any],
        functions: Mapping[str, RewardFn],
        mix: PretrainMix | None,
        server: Rollouts | None,
    ) -> None:
        self.config, self.algorithm, self.runtime, self.functions = config, algorithm, runtime, functions
        self.models = Models.load(config, runtime, tokenizer)
        self.kl, self.guard = KLController(config.kl), KLGuard(config.divergence_kl)
        self.updates = PolicyUpdates(config, algorithm, self.models, mix)
        reward = self.reward(config.terms)
        self.collector = Collector(config, runtime, self.models.model, tokenizer, prompts, reward, server)

    def step(self, number: int) -> StepResult:
        """Step `number` (from 0). Every process must call this.

        Raises TrainingError when no response has a reward, Diverged when losses or the KL ran away.
        """
        began, beta = time.perf_counter(), self.kl.beta
        samples = self.collector.sample(number)
        sampled = time.perf_counter()
        rollouts, counts = self.collector.score(samples)
        experience, metrics = measure(rollouts, self.models, self.runtime, self.config)
        self._stop_where_nothing_is_learnt(number, experience, metrics)
        metrics |= self.algorithm.advantages(experience, beta)
        metrics |= self.updates.run(experience, beta, number)
        self.kl.update(metrics["kl"], len(rollouts))

        seconds, config = time.perf_counter() - began, self.config
        scale = schedule(number, config.steps, config.optimizer)
        metrics |= counts | {
            "beta": beta,
            "learning_rate": config.optimizer.learning_rate * scale,
            "seconds": seconds,
            "rollout_seconds": sampled - began,
            "samples_per_second": len(rollouts) / seconds,
            "tokens_per_second": float(experience.mask_RT.sum()) / seconds,
        }
        return StepResult(experience=experience, metrics=metrics)

    def reward(self, terms: Sequence[RewardTerm]) -> Reward:
        """The weighted sum of `terms`, on this process's device."""
        return build_reward(
            terms,
            functions=self.functions,
            device=self.runtime.device,
            micro_batch_tokens=self.config.micro_batch_tokens,
            autocast=self.runtime.accelerator.autocast,
        )

    def _stop_where_nothing_is_learnt(
        self, number: int, experience: Experience, metrics: Mapping[str, float]
    ) -> None:
        self.collector.check_sampler(metrics["sampler_gap"])
        problem = self.guard.problem(metrics["kl_per_token"])
        if problem:
            batch = [rollout.record() for rollout in experience.rollouts]
            stop_diverged(self.runtime, self.config.output_dir, number + 1, problem, batch)
