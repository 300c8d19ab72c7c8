"""Metrics as JSONL (and TensorBoard events where asked), and a progress line on a terminal."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.files import write_jsonl
from training.errors import TrainingError


class MetricsLog:
    """`metrics.jsonl`: one object per optimiser step, flushed line by line.

    `resume_at` drops rows after that step, which an interrupted run wrote past its last checkpoint. A value
    that is not finite is written as null: JSON has no NaN.
    """

    def __init__(self, output_dir: Path, *, resume_at: int = 0, tensorboard: bool = False) -> None:
        self.path = Path(output_dir) / "metrics.jsonl"
        rows = [row for row in read_metrics(self.path) if row["step"] <= resume_at] if resume_at else []
        write_jsonl(self.path, rows)
        self._file = self.path.open("a", encoding="utf-8")
        self._events = _event_writer(Path(output_dir), resume_at) if tensorboard else None

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one row; it has an integer `step`."""
        clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
        self._file.write(json.dumps(clean, allow_nan=False) + "\n")
        self._file.flush()
        if self._events is not None:
            for name, value in clean.items():
                if name != "step" and isinstance(value, (int, float)):
                    self._events.add_scalar(name, value, row["step"])

    def close(self) -> None:
        self._file.close()
        if self._events is not None:
            self._events.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics file; a last line cut off by a kill is left out."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").split("\n"):
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


class Progress:
    """A rich progress line on a terminal (steps, time left, chosen metrics); silent anywhere else."""

    def __init__(self, total: int, description: str, *, start: int = 0, visible: bool = True) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}"),
        )
        shown = visible and sys.stderr.isatty()
        from rich.console import Console

        self._bar = RichProgress(*columns, console=Console(stderr=True), disable=not shown)
        self._task = self._bar.add_task(description, total=total, completed=start, text="")

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.stop()

    def update(self, step: int, **values: float) -> None:
        """Move to `step` and show the values beside the bar."""
        text = "  ".join(f"{name.replace('_', ' ')} {_short(value)}" for name, value in values.items())
        self._bar.update(self._task, completed=step, text=text)


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _event_writer(output_dir: Path, resume_at: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise TrainingError(
            "tensorboard: true needs the tensorboard package: pip install tensorboard"
        ) from error
    return SummaryWriter(str(output_dir / "events"), purge_step=resume_at + 1 if resume_at else None)
