"""Training in a process of its own: `python -m training.<trainer> --config …`, resumed from its checkpoints."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel

from common.files import write_atomically
from flows.runs.processes import Command, run_children
from flows.stages.contract import Json, StageInput

if TYPE_CHECKING:
    from flows.config import RunConfig

# Knobs that leave the result alone; they may differ when a stage is resumed.
TUNING = frozenset({"checkpoint_every", "keep_checkpoints", "tensorboard"})


def train(
    work: StageInput,
    trainer: str,
    *,
    fields: Json,
    total: int = 0,
    shown: Sequence[str] = ("loss",),
    name: str = "model",
    seed: int | None = None,
) -> Json:
    """Run a trainer with the stage's knobs and these fields; the model lands in `<stage>/<name>`.

    Returns its last metrics. `total` steps and the `shown` metrics feed the progress. `seed` is the run's unless
    given.

    Raises StageFailed with the trainer's error line and its log.
    """
    output = work.directory / name
    suffix = "" if name == "model" else f"-{name}"
    config_path = work.directory / f"trainer{suffix}.yaml"
    knobs = {**work.settings["knobs"], **work.tuning["knobs"]}
    # What the model card says of where the model comes from.
    metadata = {**work.provenance, **{f"{name}_digest": digest for name, digest in work.digests.items()}}
    values = {
        **knobs,
        **fields,
        "metadata": metadata,
        "output_dir": str(output),
        "seed": work.seed if seed is None else seed,
    }
    write_atomically(config_path, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))
    metrics = output / "metrics.jsonl"
    tail = _Tail(metrics)

    def relay() -> None:
        row = tail.last()
        if row is not None:
            text = "  ".join(f"{n} {row[n]:.4g}" for n in shown if isinstance(row.get(n), (int, float)))
            work.progress(row["step"], total, text)

    command, environment = launcher(work.tuning["launcher"], f"training.{trainer}")
    arguments = [*command, "--config", str(config_path), "--resume"]
    run_children(
        [Command(arguments=arguments, log=work.directory / f"log{suffix}.txt", env=environment)],
        what=f"stage {work.stage}",
        on_poll=relay,
        on_exit=work.note_child,
    )
    return json.loads((output / "result.json").read_text(encoding="utf-8"))["metrics"]


def launcher(settings: Json, module: str) -> tuple[list[str], dict[str, str]]:
    """The command that starts a trainer (plain Python, or accelerate for several processes) and its environment."""
    environment: dict[str, str] = {}
    if settings["accelerate_config"]:
        how = ["--config_file", str(settings["accelerate_config"])]
    elif settings["processes"] > 1:
        # Without --multi_gpu accelerate starts one process on a machine without GPUs, and says nothing. Any free port:
        # runs beside each other must not meet.
        how = ["--multi_gpu", "--num_processes", str(settings["processes"]), "--num_machines", "1"]
        how += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
        if not _has_gpus():
            environment["ACCELERATE_USE_CPU"] = "true"
    else:
        return [sys.executable, "-m", module], environment
    return [sys.executable, "-m", "accelerate.commands.launch", *how, "-m", module], environment


def _has_gpus() -> bool:
    import torch

    return torch.cuda.is_available()


def split_knobs(section: BaseModel, *, without: Sequence[str] = ()) -> tuple[Json, Json]:
    """A section's knobs that decide the result, and those that do not."""
    values = section.model_dump(mode="json", exclude=set(without))
    deciding = {name: value for name, value in values.items() if name not in TUNING}
    return deciding, {name: value for name, value in values.items() if name in TUNING}


def settings_of(section: BaseModel, *, without: Sequence[str] = (), **more: Any) -> Json:
    """The settings of a training stage."""
    return {"knobs": split_knobs(section, without=without)[0], **more}


def tuning_of(config: RunConfig, section: BaseModel, *, without: Sequence[str] = ()) -> Json:
    """The tuning of a training stage."""
    launch = config.launcher.model_dump(mode="json")
    return {"knobs": split_knobs(section, without=without)[1], "launcher": launch}


class _Tail:
    """The last whole row of a growing JSONL file, reading only what is new."""

    def __init__(self, path: Path) -> None:
        self._path, self._at, self._row = path, 0, None

    def last(self) -> Json | None:
        try:
            with self._path.open("rb") as file:
                size = file.seek(0, 2)
                if size < self._at:  # rewritten by a resumed trainer
                    self._at = 0
                file.seek(self._at)
                new = file.read()
        except OSError:
            return None
        whole = new[: new.rfind(b"\n") + 1]
        self._at += len(whole)
        lines = whole.splitlines()
        if lines:
            self._row = json.loads(lines[-1])
        return self._row
