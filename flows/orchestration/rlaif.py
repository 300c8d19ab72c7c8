"""The Prefect flows: one thin flow per stage, and `rlaif` over all of them.

A stage's flow does nothing but run the stage's plain function through the session, which knows what is
already done. Flows pass a small request; the session that belongs to a running `rlaif` travels beside it. What
trains or samples holds the GPU's slot; what can be expected to fail is Failed, in one line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from prefect import Flow, flow, get_run_logger, tags

from flows.config.data import ShardsSection
from flows.config.forms import RunRequest
from flows.orchestration.artifacts import PrefectReporter, artifacts_page, publish
from flows.orchestration.audit_artifacts import shown_after
from flows.orchestration.shards import run_shards
from flows.orchestration.states import fails_in_one_line, gpu_slot, without_heartbeats
from flows.pipeline.launch import open_session, run_one_stage, run_stages
from flows.pipeline.session import Session
from flows.report.data import ReportData
from flows.runs.processes import stop_with_parent
from flows.runs.progress import Reporter, Several
from flows.runs.record import Outcome
from flows.stages import improvement
from flows.stages.contract import Done, Stage, ignore
from flows.stages.registry import STAGES
from judges import LabelReport

TERMINAL: ContextVar[Reporter | None] = ContextVar("terminal", default=None)
"""Who else hears of the progress; the command line puts its terminal here."""

RESULT: ContextVar[Callable[[ReportData], None] | None] = ContextVar("result", default=None)
"""Who wants the result of a run in this process; the command line prints it."""

CHECKED: ContextVar[bool] = ContextVar("checked", default=False)
"""Whether this process has just looked at everything that the run needs; the command line has."""

_step: ContextVar[tuple[Session, Stage, str] | None] = ContextVar("step", default=None)


def _reporter() -> Reporter:
    own = PrefectReporter()
    terminal = TERMINAL.get()
    return own if terminal is None else Several([own, terminal])


def shards_told(
    name: str,
    items: Sequence[Any],
    work: Callable[[Any], Any],
    *,
    how: ShardsSection,
    done: Done = ignore,
) -> list[Any]:
    """Shards as Prefect tasks, with a line in the log for each that is done."""
    logger = get_run_logger()

    def told_done(number: int, report: LabelReport) -> None:
        statuses = ", ".join(f"{n} {status}" for status, n in report.statuses.items())
        known = f"{report.asked} judgements asked, {report.known} known"
        logger.info(
            "%s %d of %d: %d pairs (%s), %s, %.1f s",
            *(name, number + 1, len(items), report.pairs, statuses, known, report.seconds),
        )
        done(number, report)

    return run_shards(name, items, work, how=how, done=told_done)


@contextmanager
def working(request: RunRequest) -> Iterator[Session]:
    """A checked session for a flow: it reports to Prefect, holds the GPU's slot, and its runs bear the run's tag."""
    stop_with_parent()
    with (
        gpu_slot(),
        open_session(request, _reporter(), shards=shards_told, checked=CHECKED.get()) as session,
        tags(f"run:{session.config.name}"),
    ):
        get_run_logger().info("what it publishes: %s", artifacts_page())
        yield session


def run_name(name: str) -> Callable[[], str]:
    """What a flow run is called: flow, configuration, constitution where one was given, and round."""

    def made() -> str:
        from prefect.runtime import flow_run

        request: Any = flow_run.parameters["request"]
        asked = request if isinstance(request, dict) else request.model_dump()
        under = f" under {asked['constitution']}" if asked.get("constitution") else ""
        step = _step.get()
        return f"{name} of {Path(asked['config']).stem}{under}{step[2] if step else ''}"

    return made


def _stage_flow(stage: Stage) -> Flow[..., str]:
    @fails_in_one_line
    def run(request: RunRequest) -> str:
        if (step := _step.get()) is not None:
            session, found, _ = step
            with shown_after(session, found):
                return str(session.execute(found).directory)
        with working(request) as session, shown_after(session, stage):
            return str(run_one_stage(session, stage.name).directory)

    run.__name__ = run.__qualname__ = stage.name
    run.__doc__ = f"{stage.title}.\n\nArgs:\n    request: What to run."
    run.__module__ = __name__
    name = stage.name.replace("_", "-")
    return flow(name=name, flow_run_name=run_name(name))(run)


_FLOWS: dict[str, Flow[..., str]] = {stage.name: _stage_flow(stage) for stage in (*STAGES, improvement.STAGE)}

world = _FLOWS["world"]
prompts = _FLOWS["prompts"]
judge_exam = _FLOWS["judge_exam"]
helpful_sft = _FLOWS["helpful_sft"]
critique_revision = _FLOWS["critique_revision"]
sl_cai = _FLOWS["sl_cai"]
pairs = _FLOWS["pairs"]
labels = _FLOWS["labels"]
reward_model = _FLOWS["reward_model"]
gold_model = _FLOWS["gold_model"]
rl = _FLOWS["rl"]
evaluate = _FLOWS["evaluate"]


def run_step(request: RunRequest, session: Session, stage: Stage, *, note: str = "") -> Outcome:
    """A stage of a larger flow, as a flow run of its own; `note` goes behind its name. Raises what the stage raised."""
    token = _step.set((session, stage, note))
    try:
        with without_heartbeats():
            _FLOWS[stage.name](request)
    finally:
        _step.reset(token)
    return session.outcomes[stage.name]


def show(session: Session, data: ReportData) -> None:
    """Publish a run's result, tell it to the log, and to whoever waits for it in this process."""
    publish(session, data)
    get_run_logger().info("%s: %s", session.config.name, session.directory.path)
    if (listener := RESULT.get()) is not None:
        listener(data)


_DEFAULT = RunRequest()


@flow(name="rlaif", flow_run_name=run_name("rlaif"))
@fails_in_one_line
def rlaif(request: RunRequest = _DEFAULT) -> str:
    """From a constitution to an aligned policy: every stage whose inputs changed, in order.

    Returns the run directory.

    Args:
        request: What to run.
    """
    with working(request) as session:
        data = run_stages(
            session,
            to_stage=request.to_stage,
            execute=lambda stage: run_step(request, session, stage),
        )
        show(session, data)
        return str(session.directory.path)
