"""After a kill: runs that nobody works on any more get the state that is true."""

from __future__ import annotations

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.states import Cancelled, Crashed

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
