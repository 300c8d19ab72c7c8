"""The loop of PPO, GRPO and RLOO: sample, score, measure, update, over and over.

A step samples `batch_size` responses, scores them, measures their log-probabilities under the policy and the
reference (and their values), turns scores into advantages, and makes `epochs` passes of `minibatches` updates.
What a step does is fixed by the seed, the step and the weights alone, so that a resumed run repeats it. The
methods differ in an `Algorithm`; everything else is here.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.allocator import keep_freed_memory
from training.checkpoint import rng_state, set_rng_state
from training.collect import Collector
from training.data import read_prompts
from training.errors import Interrupted, TrainingError
from training.experience import Experience
from training.held_out import HeldOut, held_out_prompts
from training.interrupt import StopRequest
from training.kl_control import KLController
from training.measure import measure
from training.metrics import MetricsLog, Progress
from training.model_files import check_model
from training.models import load_tokenizer, save_model
from training.optim import schedule
from training.plan import announce
from training.pretrain_mix import PretrainMix
from training.reward_config import RewardTerm
from training.rewards import Reward, RewardFn, build_reward, check_terms
from training.rl_algorithm import Algorithm
from training.rl_config import RLConfig
from training.rl_models import Models
from training.rl_passes import Passes
from training.rl_plan import plan_rl
from training.run import Run, TrainResult
from training.runtime import Runtime
from training.sample_log import SampleLog

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

    model = learner.collector.policy_to_save()

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
        self.models = Models.load(config, runtime, tokenizer)
        self.kl = KLController(config.kl)
        mix = PretrainMix(config.pretrain, tokenizer, config.seed) if config.pretrain else None
        self.passes = Passes(config, algorithm, self.models, mix)
        reward = self._reward(config.terms, functions)
        self.collector = Collector(config, runtime, self.models.model, tokenizer, prompts, reward)
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

    def _reward(self, terms: Sequence[RewardTerm], functions: Mapping[str, RewardFn]) -> Reward:
        return build_reward(
            terms,
            functions=functions,
            device=self.runtime.device,
            micro_batch_tokens=self.config.micro_batch_tokens,
            autocast=self.runtime.accelerator.autocast,
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
            self.step, self.collector, self.models.policy, self.models.reference, self._save_whole
        )

    def _one_step(self) -> tuple[Experience, dict[str, float]]:
        began = time.perf_counter()
        rollouts, counts = self.collector.sample(self.step)
        sampled = time.perf_counter()
        models = self.models
        experience, row = measure(
            rollouts, models.policy, models.reference, models.value, self.runtime, self.config
        )
        self.collector.check_sampler(row["sampler_gap"])
        beta = self.kl.beta
        row |= self.algorithm.advantages(experience, beta)
        row |= self.passes.run(experience, beta, self.step)
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

    def _save_whole(self, directory: Path) -> None:
        model = self.collector.policy_to_save()
        if self.runtime.is_main:
            directory.mkdir(parents=True, exist_ok=True)
            save_model(model, self.tokenizer, directory)

    def _leash_broken(self) -> bool:
        return self.config.max_kl is not None and self.last.get("kl", 0.0) > self.config.max_kl

    def _checkpoint(self) -> None:
        trees = self.models.trees() | {
            "state": {
                "beta": self.kl.beta,
                "last": self.last,
                "brake": self.held_out.brake.state() if self.held_out else [],
            },
            "rng": self.runtime.gather(rng_state()),
        }
        if self.runtime.is_main:
            self.run.checkpoints.save(self.step, trees)
            if self.held_out:
                self.held_out.tidy()
        self.runtime.barrier()

    def _restore(self) -> None:
        saved = self.run.checkpoints.load(self.step)
        self.models.restore(saved)
        self.kl.beta, self.last = saved["state"]["beta"], saved["state"]["last"]
        if self.held_out:
            self.held_out.brake.restore(saved["state"]["brake"])
        set_rng_state(saved["rng"][self.runtime.rank % len(saved["rng"])])
