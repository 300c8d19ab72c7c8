"""Running a trainer of TRL: arguments alike for all of them, and a run that is timed and keeps its losses."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Batches of like length, and no recomputation: the fastest that TRL offers for padded rows. The lengths stand in a
# column of their own.
LENGTH_SORTED = {
    "gradient_checkpointing": False,
    "train_sampling_strategy": "group_by_length",
    "remove_unused_columns": False,
}


def settings(folder: Path, *, batch_size: int, learning_rate: float, **changes: Any) -> dict[str, Any]:
    """What is set on both sides (float32, optimiser, schedule, data order), and what only prints or saves."""
    return {
        "output_dir": str(folder / "trl"),
        "per_device_train_batch_size": batch_size,
        "num_train_epochs": 1,
        "learning_rate": learning_rate,
        "lr_scheduler_type": "linear",
        "warmup_steps": 0,
        "bf16": False,
        "use_cpu": True,
        "seed": 0,
        # The data set comes in the order of our own steps, a random one.
        "train_sampling_strategy": "sequential",
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        **changes,
    }


def timed(trainer: Any) -> dict[str, Any]:
    """Train; seconds from the first batch to the last step, and the loss of every step."""
    losses: list[Any] = []
    compute = trainer.compute_loss

    def recorded(*args: Any, **kwargs: Any) -> Any:
        loss = compute(*args, **kwargs)
        losses.append(loss.detach())
        return loss

    trainer.compute_loss = recorded
    began = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "losses": [float(loss) for loss in losses]}


def in_step_order(items: Sequence[Any], *, batch_size: int, seed: int) -> list[Any]:
    """The items in the order in which our trainers visit them in the first epoch."""
    from training.supervised import batch_of_step

    steps = -(-len(items) // batch_size)
    return [
        item for step in range(steps) for item in batch_of_step(items, step, batch_size=batch_size, seed=seed)
    ]
