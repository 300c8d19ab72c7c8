"""The loss curves of all benchmarks, ours over TRL's, from their results."""

from __future__ import annotations

import json
from collections.abc import Sequence

from benchmarks.harness.machine import IMAGES, RESULTS

IMAGE = IMAGES / "bench-losses.png"
TITLES = {"reward_model": "reward model", "dpo": "DPO", "sft": "SFT", "grpo": "GRPO: reward"}


def largest_difference(a: Sequence[float], b: Sequence[float]) -> float:
    """Of two curves on the same batches."""
    return float(f"{max(abs(x - y) for x, y in zip(a, b, strict=True)):.2g}")


def draw() -> None:
    """One panel a benchmark that has been run."""
    from matplotlib.figure import Figure

    found = {}
    for name in TITLES:
        path = RESULTS / f"{name}.json"
        if path.exists():
            curves = json.loads(path.read_text(encoding="utf-8")).get("loss_curves")
            if curves:
                found[name] = curves
    image = Figure(figsize=(3.2 * len(found), 2.8), layout="constrained")
    panels = image.subplots(1, len(found), squeeze=False)[0]
    for axes, (name, curves) in zip(panels, found.items(), strict=True):
        peer = next(side for side in curves if side != "ours")
        axes.plot(curves[peer], color="#e07b39", linewidth=4, alpha=0.5, label="TRL")
        axes.plot(curves["ours"], color="#1f4e79", linewidth=1.2, label="ours")
        axes.set_title(TITLES[name], loc="left", fontsize=11)
        axes.set_xlabel("step")
        axes.grid(alpha=0.2)
    panels[0].legend(fontsize=8)
    IMAGE.parent.mkdir(parents=True, exist_ok=True)
    image.savefig(IMAGE, dpi=110)
