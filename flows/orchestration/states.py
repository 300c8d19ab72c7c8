"""States that tell the truth: Failed in one line, the slot of the GPU held by whoever works, and no run left Running.

Flows that train or sample hold the slot of the server's limit `gpu`, so one of them works at a time. `charter ui` makes
the limit; on another server, `prefect gcl create gpu --limit 1` does. Without it nobody waits.
"""

from __future__ import annotations

import functools
import inspect
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, get_type_hints

from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.concurrency.sync import concurrency
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.states import Cancelled, Crashed, Failed
from pydantic import BaseModel

from flows.config.fences import Fences
from flows.errors import is_ours

P = ParamSpec("P")
R = TypeVar("R")


def fails_in_one_line(function: Callable[P, R]) -> Callable[P, R]:
    """Around the body of a flow: an error that is a message to the user becomes the Failed state's message.

    What a server started is held to the fences before anything else.
    Whoever calls the flow gets the error itself. A bug keeps its traceback.
    """

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        _without_tracebacks()
        try:
            _check_fences(*args, *kwargs.values())
            return function(*args, **kwargs)
        except ValueError as error:
            if not is_ours(error):
                raise
            reason = " ".join(str(error).split())
            get_run_logger().error("%s", reason)
            state: Any = Failed(message=reason, data=error)
            return state

    # Prefect looks names of types up where the function it is given was defined, which is here.
    run.__annotations__ = get_type_hints(function)
    run.__signature__ = inspect.signature(function, eval_str=True)  # type: ignore[attr-defined]
    return run


def _check_fences(*forms: Any) -> None:
    """Only for runs of a deployment: whoever calls a flow in a process of their own may name what they like."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None or context.flow_run.deployment_id is None:
        return
    fences = Fences.read(os.environ, Path.cwd())
    for form in forms:
        if isinstance(form, BaseModel):
            fences.check(form)


class _OneLine(logging.Filter):
    """Drops the engine's traceback of an error whose line has been logged."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        return error is None or not is_ours(error)


_ONE_LINE = _OneLine()


def _without_tracebacks() -> None:
    for name in ("prefect.flow_runs", "prefect.task_runs", "prefect.engine"):
        logging.getLogger(name).addFilter(_ONE_LINE)  # adding the same filter twice does nothing


@contextmanager
def without_heartbeats() -> Iterator[None]:
    """No heartbeats for the flows inside: ending them costs a second a flow, and nobody watches a temporary server
    for crashed runs, nor the parts of a run whose whole is watched."""
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield


GPU = "gpu"
# A killed run gives its slot back when its lease ends; a living one renews it. Prefect's shortest.
_LEASE_SECONDS = 60.0

_held: ContextVar[bool] = ContextVar("gpu_held", default=False)


@contextmanager
def gpu_slot() -> Iterator[None]:
    """Hold the slot; a flow inside one that holds it does not wait for itself."""
    if _held.get() or not _is_limited():
        yield
        return
    # A server that is away for a moment must not end a training that does not need it.
    with concurrency(GPU, lease_duration=_LEASE_SECONDS, raise_on_lease_renewal_failure=False):
        token = _held.set(True)
        try:
            yield
        finally:
            _held.reset(token)


async def create_limit() -> None:
    """Make the limit, unless there is one: a person may have changed it."""
    async with get_client() as client:
        try:
            await client.read_global_concurrency_limit_by_name(GPU)
        except ObjectNotFound:
            await client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=GPU, limit=1))


def _is_limited() -> bool:
    with get_client(sync_client=True) as client:
        try:
            limit = client.read_global_concurrency_limit_by_name(GPU)
        except ObjectNotFound:
            return False
    if limit.active and limit.active_slots >= limit.limit:
        get_run_logger().info("waiting: another run holds the GPU (concurrency limit %r)", GPU)
    return limit.active


_MESSAGE = "what ran it was killed; start it again, and it goes on from what was done"


async def close_what_was_killed() -> None:
    """Crash (or cancel, where that was under way) the runs of an earlier `charter ui` on the same database.

    Call it before anything is served. Runs of a work pool are left to their worker.
    """
    under_way = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
    wanted = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=under_way)),
        deployment_id=FlowRunFilterDeploymentId(is_null_=False),
    )
    async with get_client() as client:
        left = [r for r in await client.read_flow_runs(flow_run_filter=wanted) if r.work_pool_name is None]
        for parent in left:
            await client.set_flow_run_state(parent.id, _state(parent), force=True)
            below = FlowRunFilter(
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=under_way)),
                parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[parent.id]),
            )
            for child in await client.read_flow_runs(flow_run_filter=below):
                await client.set_flow_run_state(child.id, _state(parent), force=True)


def _state(run: FlowRun) -> State:
    cancelling = run.state is not None and run.state.type == StateType.CANCELLING
    return Cancelled(message="cancelled; " + _MESSAGE) if cancelling else Crashed(message=_MESSAGE)
