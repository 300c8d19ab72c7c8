"""The steps of PPO, GRPO and RLOO: sample, score, measure, update, over and over.

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

from engines.protocol import Rollouts
from training.config.rewards import RewardTerm
from training.config.rl import RLConfig
from training.errors import Interrupted
from training.models.load import save_model
from training.rewards.compose import Reward, RewardFn, build_reward
from training.rl.algorithms import Algorithm
from training.rl.experience import Experience
from training.rl.held_out import HeldOut, held_out_prompts
from training.rl.kl_control import KLController
from training.rl.measure import measure
from training.rl.models import Models
from training.rl.passes import Passes
from training.rl.pretrain_mix import PretrainMix
from training.rl.rollout import Collector
from training.rl.sample_log import SampleLog
from training.run.checkpoint import rng_state, set_rng_state
from training.run.directory import Run
from training.run.interrupt import StopRequest
from training.run.logs import MetricsLog, Progress
from training.run.optim import schedule
from training.run.runtime import Runtime
from training.run.stopping import KLGuard, stop_diverged

TIMINGS = frozenset({"seconds", "rollout_seconds", "samples_per_second", "tokens_per_second"})


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
        mix: PretrainMix | None,
        server: Rollouts | None,
    ) -> None:
        self.config, self.algorithm, self.run, self.runtime = config, algorithm, run, runtime
        self.tokenizer = tokenizer
        self.models = Models.load(config, runtime, tokenizer)
        self.kl, self.guard = KLController(config.kl), KLGuard(config.divergence_kl)
        self.passes = Passes(config, algorithm, self.models, mix)
        reward = self._reward(config.terms, functions)
        self.collector = Collector(config, runtime, self.models.model, tokenizer, prompts, reward, server)
        self.held_out: HeldOut | None = None
        if config.brake:
            gold = self._reward([config.brake.gold], functions)
            held_out = held_out_prompts(config.brake)
            self.held_out = HeldOut(config, config.brake, runtime, gold, held_out)
        self.step = run.start_step
        self.last: dict[str, float] = {}
        self.best: dict[str, float] = {}  # the row of the brake's best policy so far
        if self.step:
            self._restore()

    def run_all(self) -> tuple[dict[str, float], int]:
        """All steps that are left; gives the metrics of the policy to keep, and the number of steps it took."""
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
                if found := self._look_ahead():  # before the first step
                    self.best = {"kl": found["held_out_kl"], **found}
                while not self._done:
                    experience, row = self._one_step()
                    self.step += 1
                    self.last = row
                    row |= self._look_ahead()
                    if self.held_out and self.held_out.brake.best.step == self.step:
                        self.best = row
                    if log and samples:
                        log.write({"step": self.step, **row})
                        samples.write(self.step, experience)
                    shown = ("reward", "kl", "length", "tokens_per_second")
                    progress.update(self.step, loss=row["policy_loss"], **{name: row[name] for name in shown})
                    if config.snapshot_every and self.step % config.snapshot_every == 0:
                        self._save_whole(config.output_dir / "snapshots" / f"step-{self.step:06d}")
                    signum = request.agreed()
                    every = config.checkpoint_every
                    # One after the last step too: what ends the process while it saves the model then costs nothing.
                    if signum or (every and (self.step % every == 0 or self._done)):
                        self._checkpoint()
                    if signum:
                        raise Interrupted(signum, self.step)
            finally:
                if log and samples:
                    log.close()
                    samples.close()
        row = self.best if self.keeps_best else self.last
        metrics = {name: value for name, value in row.items() if name not in TIMINGS}
        if self.held_out is None:
            return metrics, self.step
        kept = self.held_out.brake.kept.step
        return metrics | {"braked": float(self.braked), "kept_step": kept, "last_step": self.step}, kept

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
        """Whether the brake ended the run."""
        return self.held_out is not None and self.held_out.brake.stop

    @property
    def keeps_best(self) -> bool:
        """Whether the policy to keep is the brake's best one, and not the last: whatever ended the run."""
        return self.held_out is not None and self.held_out.brake.kept.step != self.step

    def _look_ahead(self) -> dict[str, float]:
        """Ask the held-out judge, if it is time."""
        if self.held_out is None or not self.held_out.due(self.step, last=self._done):
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
        problem = self.guard.problem(row["kl_per_token"])
        if problem:
            batch = [rollout.record() for rollout in rollouts]
            stop_diverged(self.runtime, self.config.output_dir, self.step + 1, problem, batch)
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

    @property
    def _done(self) -> bool:
        config = self.config
        strayed = config.max_kl is not None and self.last.get("kl", 0.0) > config.max_kl
        return self.step >= config.steps or strayed or self.braked

    def _checkpoint(self) -> None:
        trees = self.models.trees() | {
            "state": {
                "beta": self.kl.beta,
                "high": self.guard.high,
                "last": self.last,
                "best": self.best,
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
        state = saved["state"]
        self.kl.beta, self.guard.high = state["beta"], state["high"]
        self.last, self.best = state["last"], state["best"]
        if self.held_out:
            self.held_out.brake.restore(state["brake"])
        set_rng_state(saved["rng"][self.runtime.rank % len(saved["rng"])])
