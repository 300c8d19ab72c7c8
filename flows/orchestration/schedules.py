"""Schedules of `charter ui`: prefect.yaml makes them, the page changes them, and what was missed is made up for once.

Prefect's own registration would set every schedule back to what the file says, switched off.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterNextScheduledStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.runner import Runner
from prefect.schedules import Schedule
from prefect.states import Cancelled

from common.files import write_json
from flows.errors import FlowError

_MISSED = "missed while nobody served it; the last run that was missed is made up for"
_PAGE = 200


def read_schedules(entry: Mapping[str, Any]) -> list[Schedule]:
    """The schedules of a deployment of prefect.yaml: cron, interval (seconds) or rrule, each under a slug.

    Raises FlowError in one line.
    """
    found = []
    for number, given in enumerate(entry.get("schedules") or ()):
        place = f"deployment {entry['name']}: schedules[{number}]"
        try:
            values = dict(given)
            if isinstance(values.get("interval"), int | float):
                values["interval"] = timedelta(seconds=values["interval"])
            if isinstance(values.get("anchor_date"), str):
                values["anchor_date"] = datetime.fromisoformat(values["anchor_date"])
            schedule = Schedule(**values)
            if not (schedule.interval or schedule.cron or schedule.rrule):
                raise ValueError("give one of cron, interval and rrule")
            checked: Any = [schedule]
            RunnerDeployment(name="x", flow_name="x", entrypoint="x:x", schedules=checked)
        except (TypeError, ValueError) as error:
            raise FlowError(f"{place}: {given}: {' '.join(str(error).split())[:300]}") from error
        if not schedule.slug:
            raise FlowError(f"{place}: needs a slug, under which its changes in the page are kept")
        found.append(schedule)
    return found


async def register(
    runner: Runner, made: RunnerDeployment, schedules: list[Schedule], *, memory: Path
) -> None:
    """Register a deployment. Its schedules are made the first time; later the page's state of them stays.

    What the file has changed since `memory` was written is changed on the server too, on or off as it is there.
    """
    said = {str(s.slug): _text(s) for s in schedules}
    kept = json.loads(memory.read_text(encoding="utf-8")) if memory.exists() else {}
    async with get_client() as client:
        try:
            before = await client.read_deployment_by_name(made.full_name)
        except ObjectNotFound:
            before = None
    wanted: dict[str, Any] = {str(s.slug): s for s in made.schedules or ()}
    if before is not None:
        made.schedules = []
        made.model_fields_set.discard("schedules")  # so that none are sent
    await runner.aadd_deployment(made)
    if before is not None:
        async with get_client() as client:
            await _follow_the_file(client, before, wanted, said, kept.get(made.full_name, {}))
    write_json(memory, {**kept, made.full_name: said})


async def _follow_the_file(
    client: PrefectClient,
    before: Any,
    wanted: Mapping[str, Any],
    said: Mapping[str, str],
    kept: Mapping[str, str],
) -> None:
    there = {s.slug: s for s in before.schedules if s.slug}
    for slug, schedule in wanted.items():
        if slug in there:
            if slug in kept and kept[slug] != said[slug]:
                await client.update_deployment_schedule(
                    before.id, there[slug].id, schedule=schedule.schedule, parameters=schedule.parameters
                )
        elif slug not in kept:
            await client.create_deployment_schedules(before.id, [(schedule.schedule, bool(schedule.active))])
    for slug in set(kept) - set(said):
        if slug in there:
            await client.delete_deployment_schedule(before.id, there[slug].id)


async def make_up_once() -> None:
    """Of the runs that a schedule missed while nobody served, the last one runs and the others are Cancelled.

    Call it before anything is served. Runs of a work pool are left to their worker.
    """
    missed = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
        deployment_id=FlowRunFilterDeploymentId(is_null_=False),
        next_scheduled_start_time=FlowRunFilterNextScheduledStartTime.model_validate(
            {"before_": datetime.now(UTC)}
        ),
    )
    seen: set[tuple[Any, Any]] = set()
    offset = 0
    async with get_client() as client:
        while runs := await client.read_flow_runs(
            flow_run_filter=missed,
            sort=FlowRunSort.EXPECTED_START_TIME_DESC,
            limit=_PAGE,
            offset=offset,
        ):
            for run in runs:
                schedule = (run.deployment_id, run.created_by.id if run.created_by else None)
                if not run.auto_scheduled or run.work_pool_name is not None or schedule not in seen:
                    seen.add(schedule)
                    offset += 1
                    continue
                await client.set_flow_run_state(run.id, Cancelled(message=_MISSED), force=True)


def _text(schedule: Schedule) -> str:
    shown = {"interval": schedule.interval, "cron": schedule.cron, "rrule": schedule.rrule}
    more = {"timezone": schedule.timezone, "parameters": schedule.parameters}
    return json.dumps({**shown, **more}, default=str, sort_keys=True)
