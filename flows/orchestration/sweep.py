"""The flow `beta-sweep`: reinforcement learning at several strengths of the leash, and the frontier that they draw."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact

from common.text import escape_markdown
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
def beta_sweep(request: RunRequest = _REQUEST, leashes: SweepRange = _RANGE) -> str:
    """Reinforcement learning at several beta, all else alike: reward against KL, and where gold falls.

    Returns the run directory; sweep.json in it has every step.

    Args:
        request: What to run; it ends with reinforcement learning.
        leashes: The strengths to try.
    """
    with working(request) as session:
        found = run_sweep(
            session,
            leashes.betas,
            execute=lambda now, stage: run_step(
                request, now, stage, note=f", beta {now.config.rl.kl.beta:g}" if stage.name == "rl" else ""
            ),
            on_strand=lambda done: get_run_logger().info(
                "%d of %d strengths are done", done, len(set(leashes.betas))
            ),
        )
        create_markdown_artifact(
            key="beta-sweep",
            markdown=markdown(found),
            description=escape_markdown(f"the leash of {session.config.name}"),
        )
        return str(session.directory.path)


def markdown(sweep: Sweep) -> str:
    """The frontier as a table and a plot."""
    lines = [
        "# Reward against the leash",
        "",
        "| beta | proxy at the end | KL (nats) | gold at the end | gold at its peak |",
        "|---:|---:|---:|---:|---:|",
    ]
    for s in sweep.strands:
        known = ["-" if value is None else f"{value:.3f}" for value in (s.gold, s.gold_peak)]
        lines.append(f"| {s.beta:g} | {s.proxy:.3f} | {s.kl:.2f} | {' | '.join(known)} |")
    if sweep.fit is not None:
        lines += ["", fit_words(sweep.fit)]
    return "\n".join(
        [*lines, "", f"![proxy and gold against KL]({png_uri(lambda ink: draw(sweep, ink))})", ""]
    )


def draw(sweep: Sweep, ink: str) -> Figure:
    """Proxy (and gold, with its fit) against root KL, one line a beta; the loosest leash is the lightest."""
    with_gold = all(strand.gold is not None for strand in sweep.strands)
    figure, panels = axes_of(ink, columns=2 if with_gold else 1)
    for axes, name in zip(panels, ("proxy", "gold"), strict=False):
        for place, strand in enumerate(sweep.strands):
            distance = [math.sqrt(max(0.0, point["kl"])) for point in strand.curve]
            axes.plot(
                distance,
                [point[name] for point in strand.curve],
                color=PROXY,
                alpha=0.3 + 0.7 * place / max(1, len(sweep.strands) - 1),
                label=f"beta {strand.beta:g}",
            )
        axes.set_title(name, fontsize=11, loc="left")
        axes.set_xlabel("square root of KL (nats per answer)")
    if with_gold and sweep.fit is not None:
        start = sum(strand.curve[0]["gold"] for strand in sweep.strands) / len(sweep.strands)
        furthest = max(math.sqrt(max(0.0, p["kl"])) for strand in sweep.strands for p in strand.curve)
        steps = [furthest * n / 60 for n in range(61)]
        panels[1].plot(steps, [start + sweep.fit(d) for d in steps], color=ink, linestyle=":", label="fit")
    panels[-1].legend(fontsize=8, framealpha=0)
    return figure
