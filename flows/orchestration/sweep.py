"""The flow `beta-sweep`: reinforcement learning at several KL penalties, and the frontier that they draw."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact

from flows.config.forms import RunRequest, SweepRange
from flows.orchestration.rlaif import run_name, run_step, working
from flows.orchestration.states import fails_in_one_line
from flows.pipeline.sweep import Sweep, run_sweep
from flows.report.drawing import PROXY, axes_of, png_uri
from flows.report.over_optimisation import fit_words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_REQUEST, _RANGE = RunRequest(), SweepRange()


@flow(name="beta-sweep", flow_run_name=run_name("beta-sweep"))
@fails_in_one_line
def beta_sweep(request: RunRequest = _REQUEST, penalties: SweepRange = _RANGE) -> str:
    """Reinforcement learning at several beta, all else alike: reward against KL, and where gold falls.

    Returns the run directory; sweep.json in it has every step.

    Args:
        request: What to run; it ends with reinforcement learning.
        penalties: The coefficients to try.
    """
    with working(request) as session:
        found = run_sweep(
            session,
            penalties.betas,
            execute=lambda now, stage: run_step(
                request, now, stage, note=f", beta {now.config.rl.kl.beta:g}" if stage.name == "rl" else ""
            ),
            on_point=lambda done: get_run_logger().info(
                "%d of %d penalties are done", done, len(set(penalties.betas))
            ),
        )
        create_markdown_artifact(
            key="beta-sweep", markdown=markdown(found), description=f"the KL penalty of {session.config.name}"
        )
        return str(session.directory.path)


def markdown(sweep: Sweep) -> str:
    """The frontier as a table and a plot."""
    lines = [
        "# Reward against the KL penalty",
        "",
        "| beta | proxy at the end | KL (nats) | gold at the end | gold at its peak |",
        "|---:|---:|---:|---:|---:|",
    ]
    for s in sweep.points:
        known = ["-" if value is None else f"{value:.3f}" for value in (s.gold, s.gold_peak)]
        lines.append(f"| {s.beta:g} | {s.proxy:.3f} | {s.kl:.2f} | {' | '.join(known)} |")
    if sweep.fit is not None:
        lines += ["", fit_words(sweep.fit)]
    return "\n".join(
        [*lines, "", f"![proxy and gold against KL]({png_uri(lambda ink: draw(sweep, ink))})", ""]
    )


def draw(sweep: Sweep, ink: str) -> Figure:
    """Proxy (and gold, with its fit) against root KL, one line a beta; the smallest penalty is the lightest."""
    with_gold = all(point.gold is not None for point in sweep.points)
    figure, panels = axes_of(ink, columns=2 if with_gold else 1)
    for axes, name in zip(panels, ("proxy", "gold"), strict=False):
        for place, point in enumerate(sweep.points):
            distance = [math.sqrt(max(0.0, step["kl"])) for step in point.curve]
            axes.plot(
                distance,
                [step[name] for step in point.curve],
                color=PROXY,
                alpha=0.3 + 0.7 * place / max(1, len(sweep.points) - 1),
                label=f"beta {point.beta:g}",
            )
        axes.set_title(name, fontsize=11, loc="left")
        axes.set_xlabel("square root of KL (nats per answer)")
    if with_gold and sweep.fit is not None:
        start = sum(point.curve[0]["gold"] for point in sweep.points) / len(sweep.points)
        furthest = max(math.sqrt(max(0.0, p["kl"])) for point in sweep.points for p in point.curve)
        steps = [furthest * n / 60 for n in range(61)]
        panels[1].plot(steps, [start + sweep.fit(d) for d in steps], color=ink, linestyle=":", label="fit")
    panels[-1].legend(fontsize=8, framealpha=0)
    return figure
