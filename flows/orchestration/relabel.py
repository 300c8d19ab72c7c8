"""The flow `relabel`: what a new constitution version makes stale is planned, shown, and labelled again."""

from __future__ import annotations

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact

from common.text import clip, escape_markdown
from constitution.diff import diff
from constitution.views import diff_markdown, plan_markdown
from flows.config.forms import RelabelRequest, RunRequest
from flows.orchestration.rlaif import run_name, run_step, working
from flows.orchestration.states import fails_in_one_line
from flows.pipeline.relabel import Staleness
from flows.pipeline.relabel import relabel as relabel_session
from flows.pipeline.session import Session


@flow(name="relabel", flow_run_name=run_name("relabel"))
@fails_in_one_line
def relabel(request: RelabelRequest) -> str:
    """Label again what a new constitution makes stale, and nothing else; the plan comes first, as an artifact.

    Returns the result in one line.

    Args:
        request: What to label again.
    """
    run = RunRequest(config=request.config, constitution=request.constitution, changes=request.changes)
    with working(run) as session:
        line = relabel_session(
            session,
            execute=lambda now, stage: run_step(run, now, stage),
            on_plan=lambda found: _show(session, found),
        )
        get_run_logger().info("%s", line)
        return line


def _show(session: Session, found: Staleness) -> None:
    plan, new = found.plan, session.constitution
    title = f"{session.config.name}: {clip(found.before.ref)} to {clip(new.ref)}"
    shown = escape_markdown(title, limit=200)
    create_markdown_artifact(key="relabel-plan", markdown=plan_markdown(plan), description=shown)
    create_markdown_artifact(
        key="constitution-diff", markdown=diff_markdown(diff(found.before, new)), description=shown
    )
    get_run_logger().info(
        "%s: %d of %d labels are stale, about %.0f calls",
        title,
        plan.labels.stale,
        plan.labels.items,
        plan.calls,
    )
