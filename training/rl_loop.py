"""The loop of PPO, GRPO and RLOO: sample, score, measure, update, over and over.

A step samples `batch_size` responses, scores them, measures their log-probabilities under the policy and the
reference (and their values), turns scores into advantages, and makes `epochs` passes of `minibatches` updates.
What a step does is fixed by the seed, the step and the weights alone, so that a resumed run repeats it. The
methods differ in an `Algorithm`; everything else is here.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from training.allocator import keep_freed_memory
from training.checkpoint import rng_state, set_rng_state
from training.collect import Collector, measure
from training.data import read_prompts
from training.errors import Interrupted, TrainingError
from training.experience import Experience, Row, pack_rows, rows_of
from training.guard import stop_diverged
from training.held_out import HeldOut, held_out_prompts
from training.interrupt import StopRequest
from training.kl_control import KLController
from training.metrics import MetricsLog, Progress
from training.models import check_fit, check_model, load_causal_lm, load_tokenizer, make_trainable, save_model
from training.optim import schedule
from training.plan import announce
from training.policy import PolicyModule, ValueModule, load_value_model, switch_dropout_off, without_adapter
from training.pretrain_mix import PretrainMix
from training.reward_config import RewardTerm
from training.rewards import Reward, RewardFn, build_reward, check_terms
from training.rl_algorithm import ActorCritic, Algorithm, Minibatch
from training.rl_config import PPOConfig, RLConfig
from training.rl_plan import plan_rl
from training.rl_update import Stats, Trained, Work
from training.run import Run, TrainResult
from training.runtime import Runtime
from training.sample_log import SampleLog
from training.weights import load_optimizer, load_weights, optimizer_state, weights

TIMINGS = frozenset({"seconds", "rollout_seconds", "samples_per_second", "tokens_per_second"})


def train(
    config: RLConfig,
    algorithm: Algorithm,
    *,
    resume: bool = False,
    reward_functions: Mapping[str, RewardFn] | None = None,
) -> TrainResult:
    """Train and save a policy. Raises TrainingError, Diverged or Interrupted."""
    run = Run.open(config, method=algorithm.name, resume=resume)
    if run.finished:
        return run.finished
    check_model(config.model, head="causal")
    if config.reference:
        check_model(config.reference, head="causal")
    check_terms(config.terms, reward_functions or {})
    prompts = read_prompts(config.prompts)
    if config.brake:
        check_terms([config.brake.gold], reward_functions or {})
        held_out_prompts(config.brake)
    tokenizer = load_tokenizer(config.model)
    keep_freed_memory()
    runtime = Runtime(config)
    if runtime.sharded and config.lora:
        raise TrainingError("lora: an adapter cannot be sampled from while its model is sharded; use DDP")
    if config.batch_size < runtime.world:
        raise TrainingError(f"batch_size ({config.batch_size}) is less than the {runtime.world} processes")
    announce(plan_rl(config, runtime, tokenizer, prompts), runtime)
    if runtime.is_main:
        run.begin()
    learner = Learner(config, algorithm, run, runtime, tokenizer, prompts, reward_functions or {})
    try:
        metrics, steps = learner.run_all()
    finally:
        learner.collector.engine.close()

    model = learner.model_to_save()

    def save(directory: Path, card: str) -> None:
        if learner.braked:
            assert learner.held_out is not None
            learner.held_out.keep_best(directory, card)
        else:
            save_model(model, tokenizer, directory, card=card)

    if runtime.is_main:
        run.finish(save, metrics, steps=steps)
        if learner.held_out:
            learner.held_out.clear()
    runtime.barrier()
    return TrainResult(output_dir=config.output_dir, metrics=metrics)


class Learner:
    """The models of a run and its steps."""

    def __init__(
        self,
        config: RLConfig,
        algorithm: Algorithm,
        run: Run,
        runtime: Runtime,
        tokenizer: Any,
        prompts: list[Any],
        functions: Mapping[str, RewardFn],
    ) -> None:
        self.config, self.algorithm, self.run, self.runtime = config, algorithm, run, runtime
        self.tokenizer = tokenizer
        dtype = torch.bfloat16 if config.lora and config.bf16 else torch.float32
        model = load_causal_lm(config.model, dtype=dtype)
        check_fit(model, tokenizer, 0)
        # Under LoRA the reference is the policy with its adapter off.
        self.reference: Any = None
        if not config.lora:
            self.reference = load_causal_lm(config.reference or config.model, trainable=False)
            self.reference = PolicyModule(self.reference.to(runtime.device), temperature=config.temperature)
        self.model = make_trainable(model, config, task="CAUSAL_LM")
        switch_dropout_off(self.model)
        tokens = config.micro_batch_tokens
        self.policy = Trained(
            PolicyModule(self.model, temperature=config.temperature), config.optimizer, runtime, tokens=tokens
        )
        self.value: Trained | None = None
        if isinstance(config, PPOConfig):
            value = ValueModule(load_value_model(config, tokenizer))
            self.value = Trained(value, config.value.optimizer, runtime, tokens=tokens)
        self.kl = KLController(config.kl)
        self.mix = PretrainMix(config.pretrain, tokenizer, config.seed) if config.pretrain else None
        self.collector = Collector(
            config,
            runtime,
            self.model,
            tokenizer,
            prompts,
            self._reward(config.terms, functions),
        )
        self.held_out: HeldOut | None = None
        if config.brake:
            gold = self._reward([config.brake.gold], functions)
            held_out = held_out_prompts(config.brake)
            self.held_out = HeldOut(config, config.brake, runtime, gold, held_out)
        self.step = run.start_step
        self.last: dict[str, float] = {}
        if self.step:
            self._restore()

    def run_all(self) -> tuple[dict[str, float], int]:
        """All steps that are left; gives the last metrics and the number of steps."""
        config, runtime = self.config, self.runtime
        log = samples = None
        if runtime.is_main:
            log = MetricsLog(config.output_dir, resume_at=self.step, tensorboard=config.tensorboard)
            samples = SampleLog(
                config.output_dir, count=config.log_samples, seed=config.seed, resume_at=self.step
            )
        progress = Progress(config.steps, self.algorithm.name, start=self.step, visible=runtime.is_main)
        with StopRequest() as request, progress:
            try:
                self._look_ahead()
                while self.step < config.steps and not self._leash_broken() and not self.braked:
                    experience, row = self._one_step()
                    self.step += 1
                    row |= self._look_ahead()
                    self.last = row
                    if log and samples:
                        log.write({"step": self.step, **row})
                        samples.write(self.step, experience)
                    shown = ("reward", "kl", "length", "samples_per_second")
                    progress.update(self.step, **{name: row[name] for name in shown})
                    if config.snapshot_every and self.step % config.snapshot_every == 0:
                        self._save_whole(config.output_dir / "snapshots" / f"step-{self.step:06d}")
                    signum = request.agreed()
                    every = config.checkpoint_every
                    if signum or (every and self.step % every == 0 and self.step < config.steps):
                        self._checkpoint()
                    if signum:
                        raise Interrupted(signum, self.step)
            finally:
                if log and samples:
                    log.close()
                    samples.close()
        metrics = {name: value for name, value in self.last.items() if name not in TIMINGS}
        if self.held_out and self.braked:
            metrics["kept_step"] = self.held_out.brake.best.step
        return metrics, self.step

    def model_to_save(self) -> Any:
        """The policy as it is now, adapters merged in unless `lora.merge` is off. Every process must call
        this."""
        model = self.collector.whole_policy()
        return without_adapter(model) if self.config.lora is None or self.config.lora.merge else model

    def _reward(self, terms: Sequence[RewardTerm], functions: Mapping[str, RewardFn]) -> Reward:
        runtime, tokens = self.runtime, self.config.micro_batch_tokens
        return build_reward(
            terms,
            functions=functions,
            device=runtime.device,
            micro_batch_tokens=tokens,
            autocast=runtime.accelerator.autocast,
        )

    @property
    def braked(self) -> bool:
        """Whether the brake ended the run; its best policy is then the one to keep."""
        return self.held_out is not None and self.held_out.brake.stop

    def _look_ahead(self) -> dict[str, float]:
        """Ask the held-out judge, if it is time."""
        if self.held_out is None or not self.held_out.due(self.step):
            return {}
        return self.held_out.evaluate(
            self.step, self.collector, self.policy, self.reference, self._save_whole
        )

    def _one_step(self) -> tuple[Experience, dict[str, float]]:
        began = time.perf_counter()
        rollouts, counts = self.collector.sample(self.step)
        sampled = time.perf_counter()
        experience, row = measure(
            rollouts, self.policy, self.reference, self.value, self.runtime, self.config
        )
        self.collector.check_sampler(row["sampler_gap"])
        beta = self.kl.beta
        row |= self.algorithm.advantages(experience, beta)
        row |= self._update(experience, beta)
        self.kl.update(row["kl"], len(rollouts))
        seconds = time.perf_counter() - began
        generated = float(experience.mask_RT.sum())
        row |= counts | {
            "beta": beta,
            "learning_rate": self.config.optimizer.learning_rate
            * schedule(self.step, self.config.steps, self.config.optimizer),
            "seconds": seconds,
            "rollout_seconds": sampled - began,
            "samples_per_second": len(rollouts) / seconds,
            "tokens_per_second": generated / seconds,
        }
        return experience, row

    def _update(self, experience: Experience, beta: float) -> dict[str, float]:
        """All passes over the step's responses; gives the mean over updates of what was measured."""
        config = self.config
        rows = rows_of(experience.rollouts)
        sums: dict[str, float] = {}
        updates = 0
        for epoch in range(config.epochs):
            order = list(range(len(rows)))
            random.Random(f"{config.seed}/{self.step}/{epoch}").shuffle(order)
            count = min(config.minibatches, len(order))
            for number in range(count):
                indices = order[number::count]
                minibatch = Minibatch(experience, indices, beta)
                items = [rows[index] for index in indices]
                found = self._policy_update(minibatch, items, epoch * config.minibatches + number)
                if self.value is not None:
                    found |= self._value_update(self.value, minibatch, items)
                for name, value in found.items():
                    sums[name] = sums.get(name, 0.0) + value
                updates += 1
        return {name: value / updates for name, value in sums.items()}

    def _policy_update(self, minibatch: Minibatch, items: Sequence[Row], update: int) -> dict[str, float]:
        device = self.runtime.device

        def loss(module: Any, group: Sequence[Row]) -> tuple[torch.Tensor, Stats]:
            packed, rows = pack_rows(group, self.policy.layout, device)
            logprobs_N, _ = module(packed, packed.predictors_N, packed.targets_N)
            return self.algorithm.policy_loss(minibatch, rows, logprobs_N)

        work = [Work(items=items, loss=loss)]
        if self.mix is not None:
            number = self.step * self.config.epochs * self.config.minibatches + update
            work.append(self.mix.work(number, self.policy.layout, device))
        scale = schedule(self.step, self.config.steps, self.config.optimizer)
        found = self.policy.update(work, scale=scale)
        self._stop_if_diverged("policy", found, minibatch, items)
        found["policy_loss"] = found.pop("loss")
        return found

    def _value_update(self, value: Trained, minibatch: Minibatch, items: Sequence[Row]) -> dict[str, float]:
        device, algorithm = self.runtime.device, self.algorithm
        assert isinstance(algorithm, ActorCritic)

        def loss(module: Any, group: Sequence[Row]) -> tuple[torch.Tensor, Stats]:
            packed, rows = pack_rows(group, value.layout, device)
            return algorithm.value_loss(minibatch, rows, module(packed, packed.predictors_N))

        scale = schedule(self.step, self.config.steps, value.config)
        found = value.update([Work(items=items, loss=loss)], scale=scale)
        self._stop_if_diverged("value", found, minibatch, items)
        found["value_loss"], found["value_grad_norm"] = found.pop("loss"), found.pop("grad_norm")
        return found

    def _stop_if_diverged(
        self, which: str, found: Mapping[str, float], minibatch: Minibatch, items: Sequence[Row]
    ) -> None:
        for name in ("loss", "grad_norm"):
            if not abs(found[name]) < float("inf"):
                batch = [minibatch.experience.rollouts[item.index].record() for item in items]
                problem = f"the {which}'s {name.replace('_', ' ')} is {found[name]}"
                stop_diverged(self.config.output_dir, self.step + 1, problem, batch)

    def _save_whole(self, directory: Path) -> None:
        model = self.model_to_save()
        if self.runtime.is_main:
            directory.mkdir(parents=True, exist_ok=True)
            save_model(model, self.tokenizer, directory)

    def _leash_broken(self) -> bool:
        return self.config.max_kl is not None and self.last.get("kl", 0.0) > self.config.max_kl

    def _checkpoint(self) -> None:
        trees: dict[str, Any] = {
            "policy": weights(self.policy.module),
            "policy_optimizer": optimizer_state(self.policy.optimizer),
            "state": {
                "beta": self.kl.beta,
                "last": self.last,
                "brake": self.held_out.brake.state() if self.held_out else [],
            },
            "rng": self.runtime.gather(rng_state()),
        }
        if self.value is not None:
            trees["value"] = weights(self.value.module)
            trees["value_optimizer"] = optimizer_state(self.value.optimizer)
        if self.runtime.is_main:
            self.run.checkpoints.save(self.step, trees)
            if self.held_out:
                self.held_out.tidy()
        self.runtime.barrier()

    def _restore(self) -> None:
        saved = self.run.checkpoints.load(self.step)
        load_weights(self.policy.module, saved["policy"])
        load_optimizer(self.policy.module, self.policy.optimizer, saved["policy_optimizer"])
        if self.value is not None:
            load_weights(self.value.module, saved["value"])
            load_optimizer(self.value.module, self.value.optimizer, saved["value_optimizer"])
        self.kl.beta, self.last = saved["state"]["beta"], saved["state"]["last"]
        if self.held_out:
            self.held_out.brake.restore(saved["state"]["brake"])
        set_rng_state(saved["rng"][self.runtime.rank % len(saved["rng"])])
