"""The loop of every trainer that passes over a data set: SFT, reward models, DPO and its relatives.

What an optimiser step sees is fixed by the seed and the step alone; processes share each step's examples out
among themselves. A loss is a sum over examples divided by the weight of the whole global batch, so that it
does not depend on the number of processes or micro-batches.
"""

from __future__ import annotations

import dataclasses
import math
import random
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, Protocol

import torch

from training.config.base import SupervisedConfig
from training.data.packing import Layout, Tree, batch_tokens
from training.errors import Interrupted, TrainingError
from training.run.checkpoint import rng_state, set_rng_state
from training.run.directory import Run
from training.run.logs import MetricsLog, Progress
from training.run.memory import keep_freed_memory
from training.run.optim import build_optimizer, clip_gradients, schedule
from training.run.runtime import Runtime
from training.run.stopping import DivergenceGuard, StopRequest, stop_diverged
from training.run.weights import load_optimizer, load_weights, optimizer_state, weights

Stats = dict[str, tuple[torch.Tensor | float, float]]
_OF_A_STEP = {"seconds", "grad_norm", "learning_rate", "tokens", "tokens_per_second"}
Sums = dict[str, list[Any]]


class Item(Protocol):
    """One training example: its tokens, and what it adds to a loss's denominator."""

    @property
    def id(self) -> str: ...
    @property
    def tree(self) -> Tree: ...
    @property
    def weight(self) -> float: ...


class Objective(Protocol):
    """A module whose `forward(items)` gives a loss summed over items, and statistics as (sum, count)."""

    @property
    def layout(self) -> Layout: ...


def fit(
    config: SupervisedConfig,
    run: Run,
    runtime: Runtime,
    objective: Any,
    items: Sequence[Any],
    *,
    before_step: Callable[[Any, Sequence[Any]], None] | None = None,
    evaluate: Callable[[Any], dict[str, float]] | None = None,
    conclude: Callable[[Any], dict[str, float]] | None = None,
    shown: Sequence[str] = ("loss",),
) -> tuple[dict[str, float], int]:
    """Train `objective` on `items`; returns the metrics of the weights it ends with and the number of optimiser steps.

    `before_step(module, batch)` is called with each global batch, on every process.
    `evaluate(module)` runs every `eval_every` steps (or after each epoch) on every process and gives metrics
    with the prefix `eval_`; with `patience` set, training stops when `eval_loss` has not improved that often,
    and the best weights are kept. `conclude(module)` runs once on the final weights and adds metrics.

    Raises Diverged, and Interrupted after a checkpoint was written.
    """
    per_epoch = math.ceil(len(items) / config.batch_size)
    total = min(config.epochs * per_epoch, config.max_steps or config.epochs * per_epoch)
    module = runtime.prepare(objective)
    optimizer = build_optimizer(module, config.optimizer)
    guard = DivergenceGuard(config.divergence_factor)
    state: dict[str, Any] = {"best": None, "waited": 0, "last": {}, "kept": {}, "kept_step": 0}
    best: dict[str, torch.Tensor] | None = None
    step = run.start_step
    if step:
        saved = run.checkpoints.load(step)
        load_weights(module, saved["model"])
        load_optimizer(module, optimizer, saved["optimizer"])
        guard.load(saved["guard"])
        state, best = saved["state"], saved.get("best")
        set_rng_state(saved["rng"][runtime.rank % len(saved["rng"])])

    def save_checkpoint() -> None:
        trees: dict[str, Any] = {
            "model": weights(module),
            "optimizer": optimizer_state(optimizer),
            "guard": guard.state(),
            "state": state,
            "rng": runtime.gather(rng_state()),
        }
        if best is not None:
            trees["best"] = best
        if runtime.is_main:
            run.checkpoints.save(step, trees)
        runtime.barrier()

    log = (
        MetricsLog(config.output_dir, resume_at=step, tensorboard=config.tensorboard)
        if runtime.is_main
        else None
    )
    progress = Progress(total, run.method, start=step, visible=runtime.is_main)
    stopped_early = config.patience is not None and state["waited"] >= config.patience
    keep_freed_memory()
    with StopRequest() as request, progress:
        try:
            while step < total and not stopped_early:
                began = time.perf_counter()
                batch = batch_of_step(items, step, batch_size=config.batch_size, seed=config.seed)
                scale = schedule(step, total, config.optimizer)
                if before_step:
                    before_step(module, batch)
                row = _gradient(config, runtime, module, batch, layout=objective.layout)
                row["grad_norm"] = clip_gradients(module, config.optimizer.max_grad_norm)
                problem = guard.problem(row["loss"], row["grad_norm"])
                if problem:
                    # Every process knows the same loss, so all of them stop here; one writes.
                    saved_batch = [dataclasses.asdict(item) for item in batch]
                    stop_diverged(runtime, config.output_dir, step + 1, problem, saved_batch)
                optimizer.step(scale)
                optimizer.zero_grad()
                step += 1
                row["learning_rate"] = scale * config.optimizer.learning_rate
                if evaluate and (step == total or step % (config.eval_every or per_epoch) == 0):
                    row |= evaluate(module)
                    if config.patience is not None:
                        if state["best"] is None or row["eval_loss"] < state["best"]:
                            state |= {"best": row["eval_loss"], "waited": 0, "kept": row, "kept_step": step}
                            best = {name: value.clone() for name, value in weights(module).items()}
                        else:
                            state["waited"] += 1
                            stopped_early = state["waited"] >= config.patience
                tokens = sum(item.tree.tokens(objective.layout) for item in batch)
                seconds = time.perf_counter() - began
                row |= {"tokens": tokens, "tokens_per_second": tokens / seconds, "seconds": seconds}
                state["last"] = row
                if log:
                    log.write({"step": step, "epoch": step / per_epoch, **row})
                progress.update(step, **{n: row[n] for n in (*shown, "tokens_per_second") if n in row})
                signum = request.agreed()
                every, ended = config.checkpoint_every, step == total or stopped_early
                # One after the last step too: what ends the process before the model is saved then costs nothing.
                if signum or (every and (step % every == 0 or ended)):
                    save_checkpoint()
                if signum:
                    raise Interrupted(signum, step)
        finally:
            if log:
                log.close()
    row, kept = state["last"], {}
    if best is not None:
        load_weights(module, best)
        # What is reported is of the weights that are saved.
        row, kept = state["kept"], {"kept_step": float(state["kept_step"]), "last_step": float(step)}
    metrics = {k: v for k, v in row.items() if k not in _OF_A_STEP} | kept
    return metrics | (conclude(module) if conclude else {}), step


def batch_of_step(items: Sequence[Any], step: int, *, batch_size: int, seed: int) -> list[Any]:
    """The global batch of a step (from 0): consecutive items in an order drawn anew for each epoch."""
    per_epoch = math.ceil(len(items) / batch_size)
    epoch, place = divmod(step, per_epoch)
    order = list(range(len(items)))
    random.Random(f"{seed}/{epoch}").shuffle(order)
    return [items[i] for i in order[place * batch_size : (place + 1) * batch_size]]


def share_out(items: Sequence[Any], world: int, layout: Layout) -> list[list[Any]]:
    """Divide items over processes so that each computes about as many tokens."""
    shares: list[list[Any]] = [[] for _ in range(world)]
    loads = [0] * world
    for item in sorted(items, key=lambda item: -item.tree.tokens(layout)):
        lightest = min(range(world), key=lambda rank: (loads[rank], rank))
        shares[lightest].append(item)
        loads[lightest] += item.tree.tokens(layout)
    return shares


def micro_batches(items: Sequence[Any], tokens: int, layout: Layout) -> list[list[Any]]:
    """Split items, longest first, into groups of at most `tokens` tokens, padding included (or one item)."""
    groups: list[list[Any]] = []
    # Separate rows are all as wide as the group's widest, which comes first.
    used = rows = width = 0
    for item in sorted(items, key=lambda item: -_size(item.tree, layout)):
        if layout == "packed":
            cost = used + item.tree.tokens(layout)
        else:
            cost = (rows + item.tree.rows) * max(width, item.tree.width)
        if groups and cost <= tokens:
            groups[-1].append(item)
            used, rows = cost, rows + item.tree.rows
        else:
            groups.append([item])
            used, rows, width = batch_tokens([item.tree], layout), item.tree.rows, item.tree.width
    return groups


def _size(tree: Tree, layout: Layout) -> int:
    return tree.tokens(layout) if layout == "packed" else tree.width


def run_batches(
    module: Any, runtime: Runtime, items: Sequence[Any], *, layout: Layout, tokens: int, **options: Any
) -> dict[str, float]:
    """Mean loss and statistics over items of all processes, without gradients; `options` go to `module`."""
    per_rank = [micro_batches(share, tokens, layout) for share in share_out(items, runtime.world, layout)]
    groups = per_rank[runtime.rank]
    sums: Sums = {}
    module.eval()
    with torch.no_grad():
        for number in range(max(map(len, per_rank))):
            counted = 1.0 if number < len(groups) else 0.0
            group = groups[number] if counted else list(items[:1])
            loss, stats = module(group, **options)
            _add(sums, {"loss": (loss, sum(item.weight for item in group)), **stats}, counted)
    module.train()
    return _means(sums, runtime)


def hold_out(items: Sequence[Any], share: float, *, seed: int) -> tuple[list[Any], list[Any]]:
    """Split items into training and held-out ones, the same way for the same seed. Those of one prompt (the tree's
    prefix) stay together, so that nothing held out answers a prompt that was trained on: no more than the share where
    the prompts allow it, else the prompt with the fewest. Where all have the same prompt, each stands alone.

    Raises TrainingError when a share above 0 leaves either side empty.
    """
    count = round(share * len(items))
    if share and not 0 < count < len(items):
        raise TrainingError(f"held_out {share}: leaves {count} of {len(items)} examples for evaluation")
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, item in enumerate(items):
        groups.setdefault(item.tree.prefix, []).append(i)
    order = list(groups.values()) if len(groups) > 1 else [[i] for i in range(len(items))]
    random.Random(f"{seed}/held out").shuffle(order)
    kept: set[int] = set()
    for group in order:
        if len(kept) + len(group) <= count:
            kept.update(group)
    if count and not kept:
        fewest = min(order, key=len)
        kept.update(fewest)
    return [x for i, x in enumerate(items) if i not in kept], [items[i] for i in sorted(kept)]


def _gradient(
    config: SupervisedConfig, runtime: Runtime, module: Any, batch: Sequence[Any], *, layout: Layout
) -> dict[str, float]:
    denominator = sum(item.weight for item in batch)
    shares = share_out(batch, runtime.world, layout)
    per_rank = [micro_batches(share, config.micro_batch_tokens, layout) for share in shares]
    groups, rounds = per_rank[runtime.rank], max(map(len, per_rank))
    sums: Sums = {"loss": [0.0, denominator / runtime.world]}
    for number in range(rounds):
        # Processes exchange weights and gradients in step: one that has no more work takes part with a zero.
        counted = 1.0 if number < len(groups) else 0.0
        group = groups[number] if counted else list(batch[:1])
        with nullcontext() if number == rounds - 1 else runtime.accelerator.no_sync(module):
            loss, stats = module(group)
            # Processes average their gradients, so each one's share is multiplied back.
            runtime.accelerator.backward(loss * (counted * runtime.world / denominator))
        sums["loss"][0] += counted * loss.detach()
        _add(sums, stats, counted)
    return _means(sums, runtime)


def _add(sums: Sums, stats: Stats, counted: float) -> None:
    for name, (total, count) in stats.items():
        entry = sums.setdefault(name, [0.0, 0.0])
        entry[0] += counted * total
        entry[1] += counted * count


def _means(sums: Sums, runtime: Runtime) -> dict[str, float]:
    names = sorted(sums)
    totals = runtime.sum([number for name in names for number in map(float, sums[name])])
    pairs = zip(names, totals[::2], totals[1::2], strict=True)
    return {name: total / count if count else math.nan for name, total, count in pairs}
