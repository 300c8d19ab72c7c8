"""The Prefect flows: one thin flow per stage, and `rlaif` over all of them.

A stage's flow does nothing but run the stage's plain function through the session, which knows what is
already done. Flows pass a small request; the session that belongs to a running `rlaif` travels beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from prefect import Flow, flow

from flows.artifacts import PrefectReporter, publish
from flows.launch import open_session, run_one_stage, run_stages
from flows.progress import Reporter, Several
from flows.report.data import ReportData
from flows.request import RunRequest
from flows.session import Outcome, Session
from flows.shards import run_shards
from flows.stages import STAGES
from flows.stages.base import Stage

TERMINAL: ContextVar[Reporter | None] = ContextVar("terminal", default=None)
"""Who else hears of the progress; the command line puts its terminal here."""

RESULT: ContextVar[Callable[[ReportData], None] | None] = ContextVar("result", default=None)
"""Who wants the result of a run in this process; the command line prints it."""

_session: ContextVar[Session | None] = ContextVar("session", default=None)


def _reporter() -> Reporter:
    own = PrefectReporter()
    terminal = TERMINAL.get()
    return own if terminal is None else Several([own, terminal])


def _stage_flow(stage: Stage) -> Flow[..., str]:
    def run(request: RunRequest) -> str:
        session = _session.get()
        if session is not None:
            return str(session.execute(stage).directory)
        with open_session(request, _reporter(), shards=run_shards) as session:
            return str(run_one_stage(session, stage.name).directory)

    run.__name__ = stage.name
    run.__qualname__ = stage.name
    run.__doc__ = f"{stage.title}."
    run.__module__ = __name__
    name = stage.name.replace("_", "-")
    return flow(name=name, flow_run_name=_run_name(name), validate_parameters=True)(run)


def _run_name(name: str) -> Callable[[], str]:
    def run_name() -> str:
        from prefect.runtime import flow_run

        request: Any = flow_run.parameters["request"]
        config = request["config"] if isinstance(request, dict) else request.config
        return f"{name} of {Path(config).stem}"

    return run_name


_FLOWS: dict[str, Flow[..., str]] = {stage.name: _stage_flow(stage) for stage in STAGES}

world = _FLOWS["world"]
prompts = _FLOWS["prompts"]
helpful_sft = _FLOWS["helpful_sft"]
critique_revision = _FLOWS["critique_revision"]
sl_cai = _FLOWS["sl_cai"]
pairs = _FLOWS["pairs"]
labels = _FLOWS["labels"]
reward_model = _FLOWS["reward_model"]
rl = _FLOWS["rl"]
evaluate = _FLOWS["evaluate"]


_DEFAULT = RunRequest()


@flow(name="rlaif", flow_run_name=_run_name("rlaif"))
def rlaif(request: RunRequest = _DEFAULT) -> str:
    """From a constitution to an aligned policy: every stage whose inputs changed, in order.

    Returns the run directory.

    Args:
        request: What to run.
    """
    with open_session(request, _reporter(), shards=run_shards) as session:

        def execute(stage: Stage) -> Outcome:
            _FLOWS[stage.name](request)
            return session.outcomes[stage.name]

        token = _session.set(session)
        try:
            data = run_stages(session, to_stage=request.to_stage, execute=execute)
        finally:
            _session.reset(token)
        publish(session, data)
        if (listener := RESULT.get()) is not None:
            listener(data)
        return str(session.run.path)
