"""A run of PPO, GRPO or RLOO: everything looked at before a model loads, the steps, and the policy saved."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from common.rows import read_prompts, report_left_out
from training.config.rl import RLConfig
from training.errors import TrainingError
from training.models.files import check_model
from training.models.load import load_tokenizer, save_model
from training.rewards.compose import RewardFn, check_terms
from training.rl.algorithms import Algorithm
from training.rl.held_out import held_out_prompts
from training.rl.learner import Learner
from training.rl.memory import plan_rl
from training.rl.pretrain_mix import PretrainMix
from training.rl.rollout import connect
from training.run.allocator import keep_freed_memory
from training.run.directory import Run, TrainResult
from training.run.memory import announce
from training.run.runtime import Runtime


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
    functions = reward_functions or {}
    check_terms(config.terms, functions)
    prompts = list(report_left_out(read_prompts(config.prompts)))
    if config.brake:
        check_terms([config.brake.gold], functions)
        held_out_prompts(config.brake)
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
        learner = Learner(config, algorithm, run, runtime, tokenizer, prompts, functions, mix, server)
        metrics, steps = learner.run_all()
    finally:
        if server is not None:
            server.close()

    model = learner.collector.policy_to_save()

    def save(directory: Path, card: str) -> None:
        if learner.keeps_best:
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
