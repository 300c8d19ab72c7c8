"""Timing our own trainers: from the first batch (or the reference's pass) to the last step, without load and save."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

OPTIMIZER = {
    "betas": (0.9, 0.999),
    "schedule": "linear",
    "warmup": 0.0,
    "final_ratio": 0.0,
    "weight_decay": 0.0,
}


def timed(module: ModuleType, config: Any, *, first: str = "fit") -> dict[str, Any]:
    """Run a supervised trainer's `train`; seconds from its call of `first` until the last step has been logged."""
    from training.run.logs import read_metrics

    stamps: list[float] = []
    originals = {name: getattr(module, name) for name in {first, "fit"}}

    def begin(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            stamps.append(time.perf_counter())
            return original(*args, **kwargs)

        return call

    def fit(*args: Any, conclude: Any = None, **kwargs: Any) -> Any:
        if first == "fit":
            stamps.append(time.perf_counter())

        def end(trained: Any) -> dict[str, float]:
            stamps.append(time.perf_counter())
            return conclude(trained) if conclude else {}

        return originals["fit"](*args, conclude=end, **kwargs)

    if first != "fit":
        setattr(module, first, begin(originals[first]))
    module.fit = fit  # type: ignore[attr-defined]
    shutil.rmtree(config.output_dir, ignore_errors=True)
    try:
        module.train(config)
    finally:
        for name, original in originals.items():
            setattr(module, name, original)
    rows = read_metrics(Path(config.output_dir) / "metrics.jsonl")
    return {"seconds": stamps[-1] - stamps[0], "losses": [row["loss"] for row in rows]}
