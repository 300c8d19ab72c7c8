"""The same run at several KL penalties: what reward each buys, and at what distance.

All of them share one run directory; only the stage of reinforcement learning differs, so its key and its folder
do, and what is done is reused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from common.files import write_json
from common.rows import read_rows
from flows.config.trainers import PreferenceSection
from flows.errors import FlowError
from flows.evaluation import gold
from flows.evaluation.over_optimisation import Fit, fit
from flows.pipeline.session import Session
from flows.runs.record import Outcome
from flows.stages import rl
from flows.stages.contract import Stage
from flows.stages.registry import active

SWEEP = "sweep.json"
# The end of a curve is the mean of its last steps: one step's answers are few.
_LAST = 5


@dataclass(frozen=True, kw_only=True)
class SweepPoint:
    """Reinforcement learning at one beta: ends are means over the last steps, KL in nats per answer.

    `gold` figures are None where there is neither the microworld's oracle nor early stopping. With early stopping alone
    the curve is what it saw on held-out prompts, and the end is its last evaluation.
    """

    beta: float
    proxy: float
    kl: float
    gold: float | None
    gold_peak: float | None
    curve: Sequence[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """All points, from the smallest penalty to the largest, and the shape of gold over all of their steps."""

    points: Sequence[SweepPoint]
    fit: Fit | None

    def record(self) -> dict[str, Any]:
        """For sweep.json."""
        shape = None if self.fit is None else {**asdict(self.fit), "peak": self.fit.peak}
        return {"schema_version": 1, "strands": [asdict(point) for point in self.points], "fit": shape}


def run_sweep(
    session: Session,
    betas: Sequence[float],
    *,
    execute: Callable[[Session, Stage], Outcome],
    on_point: Callable[[int], None] = lambda done: None,
) -> Sweep:
    """Everything up to reinforcement learning once, then that for every beta; writes sweep.json.

    Raises FlowError where the method has no such penalty.
    """
    config = session.config
    if isinstance(config.rl, PreferenceSection):
        raise FlowError(f"rl.method {config.rl.method} learns from pairs; a sweep needs ppo, grpo or rloo")
    stages = active(config)
    for stage in stages[: [s.name for s in stages].index(rl.STAGE.name)]:
        execute(session, stage)
    points = []
    for beta in sorted(set(betas)):
        penalised = config.rl.model_copy(update={"kl": config.rl.kl.model_copy(update={"beta": beta})})
        now = replace(session, config=config.model_copy(update={"rl": penalised}))
        now = replace(now, outputs=dict(session.outputs), outcomes={})
        execute(now, rl.STAGE)
        points.append(_measured(beta, now))
        on_point(len(points))
    sweep = Sweep(points=points, fit=_shape(points))
    write_json(session.directory.path / SWEEP, sweep.record())
    return sweep


def _measured(beta: float, session: Session) -> SweepPoint:
    """The point whose reinforcement learning is done."""
    config = session.config
    # Once called brake.
    watched = [session.outputs.get(("rl", name)) for name in ("early_stopping", "brake")]
    if config.gold is None and any(watched):
        seen = [row for found in watched if found for _, row in read_rows(Path(found.path))]
        return _point(beta, seen, last=1)
    samples = [row for _, row in read_rows(Path(session.outputs[("rl", "samples")].path))]
    return _point(beta, gold.curve(samples, gold=config.gold is not None))


def _point(beta: float, curve: list[dict[str, Any]], *, last: int = _LAST) -> SweepPoint:
    if not curve:
        raise FlowError(f"beta {beta:g}: no answers were logged; set rl.log_samples")

    def end(points: Sequence[dict[str, Any]], name: str) -> float:
        ends = points[-last:]
        return sum(point[name] for point in ends) / len(ends)

    has_gold = "gold" in curve[0]
    windows = [curve[: n + 1] for n in range(min(last, len(curve)) - 1, len(curve))]
    return SweepPoint(
        beta=beta,
        proxy=end(curve, "proxy"),
        kl=end(curve, "kl"),
        gold=end(curve, "gold") if has_gold else None,
        gold_peak=max(end(window, "gold") for window in windows) if has_gold else None,
        curve=curve,
    )


def _shape(points: Sequence[SweepPoint]) -> Fit | None:
    """Gold gains of all steps against root KL, from the mean gold of the first steps, where KL is still zero."""
    if any(point.gold is None for point in points):
        return None
    start = sum(point.curve[0]["gold"] for point in points) / len(points)
    moved = [(math.sqrt(max(0.0, p["kl"])), p["gold"] - start) for point in points for p in point.curve[1:]]
    return fit([d for d, _ in moved], [g for _, g in moved])
