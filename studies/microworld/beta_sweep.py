"""The KL penalty: reinforcement learning at several beta, everything else alike; proxy and gold against KL.

    python -m studies.microworld.beta_sweep [--betas 0 0.05 0.2] [--steps 60] [--runs DIR]

All runs share one run directory, so only the RL stage and the evaluation are done again. They take more steps than the
demo does, to show where each penalty ends. Writes
benchmarks/results/beta_sweep.json and docs/images/beta_sweep.png.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

from benchmarks.harness.machine import IMAGES, RESULTS, machine
from studies.microworld.seeds import run_demo

IMAGE = IMAGES / "beta_sweep.png"


def end(curve: list[dict[str, Any]], key: str, last: int = 5) -> float:
    """Mean of a figure over the last points of a curve."""
    return sum(p[key] for p in curve[-last:]) / last


def draw(curves: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Proxy and gold against the square root of KL, one line a beta."""
    from matplotlib.figure import Figure

    from flows.report.figures import smoothed
    from flows.report.over_optimisation import CurvePoint

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, key, title in zip(
        panels, ("proxy", "gold"), ("proxy: reward model", "gold: oracle"), strict=True
    ):
        for i, (beta, whole) in enumerate(curves.items()):
            curve = smoothed([CurvePoint.from_json(point) for point in whole])
            x = [math.sqrt(max(0.0, p.kl)) for p in curve]
            shade = 0.85 - 0.7 * i / max(1, len(curves) - 1)
            axes.plot(
                x,
                [getattr(p, key) for p in curve],
                ".-",
                color=(shade, 0.35, 1 - shade),
                label=f"beta {beta}",
            )
        axes.set_title(title, loc="left", fontsize=11)
        axes.set_xlabel("square root of KL (nats per answer)")
        axes.grid(alpha=0.2)
    panels[0].legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--betas", type=float, nargs="+", default=[0.0, 0.05, 0.2])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--steps", type=int, default=60, help="RL steps of every run; more than the demo takes"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmarks"))
    args = parser.parse_args()
    curves: dict[str, list[dict[str, Any]]] = {}
    finals: dict[str, dict[str, float]] = {}
    for beta in args.betas:
        summary = run_demo(
            f"seed={args.seed}",
            f"name=seed-{args.seed}",
            f"rl.kl.beta={beta}",
            f"rl.steps={args.steps}",
            runs=args.runs,
        )
        curves[f"{beta:g}"] = summary["rl"]["curve"]
        finals[f"{beta:g}"] = {
            k: round(v["value"], 4) for k, v in summary["models"]["rl_cai"]["gold"].items()
        }
    rows = {
        beta: {
            "proxy_end": round(end(curve, "proxy"), 3),
            "gold_end": round(end(curve, "gold"), 3),
            "gold_peak": round(max(end(curve[: i + 5], "gold") for i in range(len(curve) - 4)), 3),
            "kl_end": round(end(curve, "kl"), 2),
            "rl_cai": finals[beta],
        }
        for beta, curve in curves.items()
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "beta_sweep.json"
    path.write_text(json.dumps({"machine": machine(), "beta": rows}, indent=1) + "\n", encoding="utf-8")
    draw(curves, IMAGE)
    for beta, row in rows.items():
        print(f"beta {beta:>5}: {json.dumps({k: v for k, v in row.items() if k != 'rl_cai'})}")
    print(path, IMAGE)


if __name__ == "__main__":
    main()
