"""A run's output directory: what may start there, what resumes, and what is left when it is finished.

While running: `config.yaml` (resolved), `inputs.json` (digests of what is read), `metrics.jsonl`, `checkpoints/`.
When finished: the model in Hugging Face format with its card, `result.json`, and no checkpoints.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from common.files import write_json
from training.config.base import TrainConfig, save_config
from training.errors import TrainingError
from training.run.card import model_card
from training.run.checkpoint import Checkpoints
from training.run.inputs import refuse_other_inputs, write_inputs

# What may differ between a run and its continuation: none of it changes a loss.
_FREE_FIELDS = {"output_dir", "checkpoint_every", "keep_checkpoints", "tensorboard", "metadata"}


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """A finished run: where its model is, and its last metrics."""

    output_dir: Path
    metrics: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Run:
    """An opened output directory. `finished` holds the result of a run that has nothing left to do."""

    config: TrainConfig
    method: str
    checkpoints: Checkpoints
    start_step: int
    finished: TrainResult | None = None

    @classmethod
    def open(cls, config: TrainConfig, *, method: str, resume: bool) -> Run:
        """Look at the output directory before anything heavy is loaded; writes nothing.

        Raises TrainingError when it holds another run's work and `resume` was not asked for, or when the
        config changed in a field that changes the training, or the data or a model at the same path did, or the last
        checkpoint is damaged.
        """
        directory = config.output_dir
        if directory.exists() and not directory.is_dir():
            raise TrainingError(f"output_dir {directory}: is a file")
        checkpoints = Checkpoints(directory, keep=config.keep_checkpoints)
        result = directory / "result.json"
        if not resume:
            if checkpoints.latest() and not result.exists():
                raise TrainingError(
                    f"output_dir {directory}: holds checkpoints of an interrupted run; pass --resume"
                )
            if result.exists() or (directory / "config.json").exists():
                raise TrainingError(f"output_dir {directory}: already holds a trained model; choose another")
            return cls(config=config, method=method, checkpoints=checkpoints, start_step=0)
        if (directory / "config.yaml").exists():
            _refuse_changes(directory / "config.yaml", config)
        if not result.exists():
            refuse_other_inputs(config)
        finished = None
        if result.exists():
            metrics = json.loads(result.read_text(encoding="utf-8"))["metrics"]
            finished = TrainResult(output_dir=directory, metrics=metrics)
        step = checkpoints.latest() or 0
        if step and finished is None:
            checkpoints.check(step)
        return cls(config=config, method=method, checkpoints=checkpoints, start_step=step, finished=finished)

    def begin(self) -> None:
        """Create the directory and write the resolved config. Only the main process calls this."""
        try:
            self.config.output_dir.mkdir(parents=True, exist_ok=True)
            save_config(self.config, self.config.output_dir / "config.yaml")
            write_inputs(self.config)
        except OSError as error:
            raise TrainingError(f"output_dir {self.config.output_dir}: {error.strerror}") from error

    def finish(
        self, save: Callable[[Path, str], None], metrics: Mapping[str, float], *, steps: int
    ) -> TrainResult:
        """Save the model through `save(directory, card)`, write `result.json`, drop the checkpoints.

        Only the main process calls this.
        """
        directory = self.config.output_dir
        save(directory, model_card(self.method, self.config, metrics, steps=steps))
        record = {"method": self.method, "steps": steps, "metrics": dict(metrics)}
        write_json(directory / "result.json", record)
        self.checkpoints.clear()
        return TrainResult(output_dir=directory, metrics=dict(metrics))


def _refuse_changes(path: Path, config: TrainConfig) -> None:
    before: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    now = config.model_dump(mode="json")
    for name in now:
        if name not in _FREE_FIELDS and before.get(name) != now[name]:
            raise TrainingError(
                f"{path}: cannot resume: {name} was {before.get(name)!r} and is now {now[name]!r}"
            )
