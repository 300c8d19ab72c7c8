"""A run of PPO, GRPO or RLOO: everything looked at before a model loads, step after step, and the policy saved.

python -m training.rl --config rl.yaml [--resume]     (`method: ppo | grpo | rloo` in the file)
python -m training.ppo --config ppo.yaml [--resume]   (and grpo, rloo: the same without `method`)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.rows import read_prompts, report_left_out
from training.config.rl import RLConfig
from training.errors import Interrupted, TrainingError
from training.models.files import check_model
from training.models.load import load_tokenizer, save_model
from training.rewards.compose import RewardFn, check_terms
from training.rl.algorithms import algorithm_of
from training.rl.early_stopping import HeldOut, held_out_prompts
from training.rl.learner import TIMINGS, Learner
from training.rl.memory import plan_rl
from training.rl.pretrain_mix import PretrainMix
from training.rl.rollout import connect
from training.rl.sample_log import SampleLog
from training.run.checkpoint import rng_state, set_rng_state
from training.run.directory import Run, TrainResult
from training.run.logs import MetricsLog, Progress
from training.run.memory import announce, keep_freed_memory
from training.run.runtime import Runtime
from training.run.stopping import StopRequest


def train(
    config: RLConfig, *, resume: bool = False, reward_functions: Mapping[str, RewardFn] | None = None
) -> TrainResult:
    """Train and save a policy. Raises TrainingError, Diverged or Interrupted."""
    algorithm = algorithm_of(config)
    run = Run.open(config, method=algorithm.name, resume=resume)
    if run.finished:
        return run.finished
    check_model(config.model, head="causal")
    if config.reference:
        check_model(config.reference, head="causal")
    functions = reward_functions or {}
    check_terms(config.terms, functions)
    prompts = list(report_left_out(read_prompts(config.prompts)))
    if config.early_stopping:
        check_terms([config.early_stopping.gold], functions)
        held_out_prompts(config.early_stopping)
    tokenizer = load_tokenizer(config.model)
    keep_freed_memory()
    runtime = Runtime(config)
    if config.batch_size < runtime.world:
        raise TrainingError(f"batch_size ({config.batch_size}) is less than the {runtime.world} processes")
    mix = PretrainMix(config.pretrain, tokenizer, config.seed) if config.pretrain else None
    server = connect(config, runtime, tokenizer)
    try:
        announce(plan_rl(config, runtime, tokenizer, prompts), runtime)
        if runtime.is_main:
            run.begin()
        learner = Learner(config, algorithm, runtime, tokenizer, prompts, functions, mix, server)
        steps = Steps(learner, run, tokenizer)
        metrics, taken = steps.run_all()
    finally:
        if server is not None:
            server.close()

    model = learner.collector.policy_to_save()

    def save(directory: Path, card: str) -> None:
        if steps.held_out is not None and steps.keeps_best:
            steps.held_out.keep_best(directory, card)
        else:
            save_model(model, tokenizer, directory, card=card)

    if runtime.is_main:
        run.finish(save, metrics, steps=taken)
        if steps.held_out:
            steps.held_out.clear()
    runtime.barrier()
    return TrainResult(output_dir=config.output_dir, metrics=metrics)


class Steps:
    """The steps of a run, one after the other: logged, looked at by early stopping, kept in checkpoints."""

    def __init__(self, learner: Learner, run: Run, tokenizer: Any) -> None:
        self.learner, self.run, self.tokenizer = learner, run, tokenizer
        self.config, self.runtime = learner.config, learner.runtime
        self.held_out: HeldOut | None = None
        if settings := self.config.early_stopping:
            gold = learner.reward([settings.gold])
            self.held_out = HeldOut(self.config, settings, self.runtime, gold, held_out_prompts(settings))
        self.step = run.start_step
        self.last: dict[str, float] = {}
        self.best: dict[str, float] = {}  # the row of the best policy so far, by gold
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
        name = self.learner.algorithm.name
        progress = Progress(config.steps, name, start=self.step, visible=runtime.is_main)
        with StopRequest() as request, progress:
            try:
                if found := self._look_ahead():  # before the first step
                    self.best = {"kl": found["held_out_kl"], **found}
                while not self._done:
                    result = self.learner.step(self.step)
                    row = self.last = result.metrics
                    self.step += 1
                    row |= self._look_ahead()
                    if self.held_out and self.held_out.stopping.best.step == self.step:
                        self.best = row
                    if log and samples:
                        log.write({"step": self.step, **row})
                        samples.write(self.step, result.experience)
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
        kept = self.held_out.stopping.kept.step
        ends = {"stopped_early": float(self.stopped_early), "kept_step": kept, "last_step": self.step}
        return metrics | ends, kept

    @property
    def stopped_early(self) -> bool:
        """Whether early stopping ended the run."""
        return self.held_out is not None and self.held_out.stopping.stop

    @property
    def keeps_best(self) -> bool:
        """Whether the policy to keep is the best one by gold, and not the last: whatever ended the run."""
        return self.held_out is not None and self.held_out.stopping.kept.step != self.step

    @property
    def _done(self) -> bool:
        config = self.config
        strayed = config.max_kl is not None and self.last.get("kl", 0.0) > config.max_kl
        return self.step >= config.steps or strayed or self.stopped_early

    def _look_ahead(self) -> dict[str, float]:
        """Ask the held-out judge, if it is time."""
        if self.held_out is None or not self.held_out.due(self.step, last=self._done):
            return {}
        return self.held_out.evaluate(
            self.step, self.learner.collector, self.learner.models, self._save_whole
        )

    def _save_whole(self, directory: Path) -> None:
        model = self.learner.collector.policy_to_save()
        if self.runtime.is_main:
            directory.mkdir(parents=True, exist_ok=True)
            save_model(model, self.tokenizer, directory)

    def _checkpoint(self) -> None:
        learner = self.learner
        trees = learner.models.trees() | {
            "state": {
                "beta": learner.kl.beta,
                "high": learner.guard.high,
                "last": self.last,
                "best": self.best,
                "early_stopping": self.held_out.stopping.state() if self.held_out else [],
            },
            "rng": self.runtime.gather(rng_state()),
        }
        if self.runtime.is_main:
            self.run.checkpoints.save(self.step, trees)
            if self.held_out:
                self.held_out.tidy()
        self.runtime.barrier()

    def _restore(self) -> None:
        learner, saved = self.learner, self.run.checkpoints.load(self.step)
        learner.models.restore(saved)
        state = saved["state"]
        learner.kl.beta, learner.guard.high = state["beta"], state["high"]
        self.last, self.best = state["last"], state["best"]
        if self.held_out:
            self.held_out.stopping.restore(state["early_stopping"])
        set_rng_state(saved["rng"][self.runtime.rank % len(saved["rng"])])
