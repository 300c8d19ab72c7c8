"""Finishing a run: whole weights from wherever they are, saved in Hugging Face format by the main process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.models.load import save_model
from training.run.directory import Run, TrainResult
from training.run.runtime import Runtime
from training.run.weights import weights, whole_adapted, whole_state


def export(
    run: Run, runtime: Runtime, model: Any, tokenizer: Any, metrics: Mapping[str, float], *, steps: int
) -> TrainResult:
    """Save `model`, adapters merged in where `lora.merge` says so. Every process must call this."""
    lora, state = run.config.lora, None
    if lora and lora.merge:
        model = (whole_adapted(model) if runtime.sharded else model).merge_and_unload()
    elif runtime.sharded:
        # An adapter is saved alone.
        state = weights(model) if lora else whole_state(model)

    def save(directory: Path, card: str) -> None:
        save_model(model, tokenizer, directory, card=card, state=state)

    if runtime.is_main:
        run.finish(save, metrics, steps=steps)
    runtime.barrier()
    return TrainResult(output_dir=run.config.output_dir, metrics=dict(metrics))
