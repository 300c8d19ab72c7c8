"""Schedules to the end: the server makes a run, it starts and finishes; restarts, missed runs, clocks that change."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from harness.ui import ENDED, ROOT, UI, start_ui, wait_for

from flows.errors import FlowError

ZONE = "Europe/Vienna"
STAGE = {"entrypoint": "flows/orchestration/rlaif.py:world", "concurrency_limit": 1}


def write(folder: Path, **deployments: list[dict]) -> None:
    """A configuration whose first stage takes a second, and a prefect.yaml with these schedules for it."""
    values = yaml.safe_load((ROOT / "configs" / "microworld.yaml").read_text(encoding="utf-8"))
    weights = ROOT / "microworld" / "weights"
    values |= {
        "world": {"demonstrations": 5, "sl": 5, "rl": 5, "eval": 5},
        "models": {"base": str(weights / "base"), "critic": str(weights / "feedback")},
        "judge": {"model": str(weights / "feedback")},
        "runs_dir": str(folder / "runs"),
    }
    (folder / "tiny.yaml").write_text(yaml.safe_dump(values))
    entries = [
        {**STAGE, "name": name, "parameters": {"request": {"config": "tiny.yaml"}}, "schedules": schedules}
        for name, schedules in deployments.items()
    ]
    (folder / "prefect.yaml").write_text(yaml.safe_dump({"deployments": entries}))


def schedules(ui: UI, name: str) -> dict[str | None, dict]:
    return {s["slug"]: s for s in ui.call("GET", f"/deployments/name/world/{name}")["schedules"]}


def switch(ui: UI, name: str, *, on: bool = True) -> None:
    found = ui.call("GET", f"/deployments/name/world/{name}")
    for schedule in found["schedules"]:
        ui.patch(f"/deployments/{found['id']}/schedules/{schedule['id']}", active=on)


def runs(ui: UI, name: str) -> list[dict]:
    found = ui.call("GET", f"/deployments/name/world/{name}")
    return ui.call(
        "POST", "/flow_runs/filter", flow_runs={"deployment_id": {"any_": [found["id"]]}}, sort="ID_DESC"
    )


def finished(ui: UI, name: str) -> list[dict]:
    return [run for run in runs(ui, name) if run["state"]["type"] == "COMPLETED"]


@pytest.fixture(scope="module")
def ui(tmp_path_factory) -> Iterator[UI]:
    folder = tmp_path_factory.mktemp("schedules")
    write(
        folder,
        minutely=[{"cron": "* * * * *", "timezone": ZONE, "slug": "minutely", "active": False}],
        often=[{"interval": 20, "timezone": ZONE, "slug": "often", "active": False}],
        daily=[{"cron": "0 3 * * *", "timezone": "UTC", "slug": "daily", "active": False}],
    )
    running = start_ui(folder)
    yield running
    running.stop()


@pytest.mark.prefect
@pytest.mark.slow
@pytest.mark.long
def test_cron_and_interval_fire_in_a_named_zone_and_no_run_is_doubled(ui):
    began = datetime.now(UTC)
    switch(ui, "minutely")
    switch(ui, "often")
    wait_for(lambda: finished(ui, "minutely"), "a run of the cron", 150)
    wait_for(lambda: len(finished(ui, "often")) >= 2, "two runs of the interval", 150)
    for name in ("minutely", "often"):
        for run in finished(ui, name):
            due = datetime.fromisoformat(run["expected_start_time"])
            assert run["auto_scheduled"] and due >= began - timedelta(seconds=1)
            assert timedelta() <= datetime.fromisoformat(run["start_time"]) - due < timedelta(seconds=60)
        if name == "minutely":
            assert due.second == 0
        assert max(Counter(run["expected_start_time"] for run in runs(ui, name)).values()) == 1


@pytest.mark.prefect
@pytest.mark.slow
@pytest.mark.long
def test_a_restart_keeps_what_the_page_says_and_makes_up_for_one_missed_run(ui):
    switch(ui, "minutely", on=False)
    switch(ui, "often")
    daily = ui.call("GET", "/deployments/name/world/daily")
    [shipped] = daily["schedules"]
    ui.patch(
        f"/deployments/{daily['id']}/schedules/{shipped['id']}",
        active=True,
        schedule={"cron": "30 5 * * *", "timezone": ZONE},
    )
    added = {"active": True, "schedule": {"interval": 86_400.0, "anchor_date": "2026-01-01T00:00:00Z"}}
    ui.post(f"/deployments/{daily['id']}/schedules", [added])
    wait_for(lambda: len(runs(ui, "often")) > 10, "runs ahead of time")
    ahead = {run["id"] for run in runs(ui, "often") if run["state"]["type"] == "SCHEDULED"}
    ui.stop()
    stopped = datetime.now(UTC)
    time.sleep(65)
    again = start_ui(ui.folder)
    ui.process, ui.page = again.process, again.page
    served = datetime.now(UTC)
    kept = schedules(ui, "daily")
    assert kept["daily"]["active"] and kept["daily"]["schedule"]["cron"] == "30 5 * * *"
    assert len(kept) == 2 and kept[None]["active"]
    assert not schedules(ui, "minutely")["minutely"]["active"] and schedules(ui, "often")["often"]["active"]

    def missed() -> list[str]:
        """States of what came due before it was served again, the oldest first."""
        due = [
            (datetime.fromisoformat(r["expected_start_time"]), r)
            for r in runs(ui, "often")
            if r["id"] in ahead
        ]
        due = sorted((at, r["state"]["type"]) for at, r in due if stopped <= at < served)
        return [state for _, state in due]

    wait_for(lambda: set(missed()) <= ENDED, "the missed runs", 120)
    states = missed()
    # Of those that nobody served, one runs; the next ones may have come due in the meantime.
    cancelled = states.count("CANCELLED")
    assert states == ["CANCELLED"] * cancelled + ["COMPLETED"] * (len(states) - cancelled)
    assert cancelled >= 2 and states[-1] == "COMPLETED"
    assert max(Counter(r["expected_start_time"] for r in runs(ui, "often")).values()) == 1


@pytest.mark.prefect
@pytest.mark.slow
@pytest.mark.long
def test_a_form_outside_the_fences_ends_failed_in_one_line(ui):
    switch(ui, "often", on=False)
    run = ui.start("world/daily", request={"config": "tiny.yaml", "changes": ["models.base=/etc"]})
    state = ui.ended(run)
    assert state["type"] == "FAILED" and state["message"].startswith("models.base: '/etc' is not allowed")
    assert "CHARTER_ALLOWED_ROOTS" in state["message"] and "\n" not in state["message"]


@pytest.mark.parametrize(
    ("schedule", "part"),
    [
        ({"cron": "61 * * * *", "slug": "x"}, "61"),
        ({"cron": "0 3 * * *", "timezone": "Europe/Wien", "slug": "x"}, "Europe/Wien"),
        ({"crn": "0 3 * * *", "slug": "x"}, "crn"),
        ({"slug": "x"}, "cron, interval and rrule"),
        ({"cron": "0 3 * * *", "interval": 60, "slug": "x"}, "interval"),
        ({"cron": "0 3 * * *"}, "slug"),
        ("daily", "daily"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused_in_one_line(schedule, part):
    from flows.orchestration.schedules import read_schedules

    with pytest.raises(FlowError) as refused:
        read_schedules({"name": "mine", "schedules": [schedule]})
    line = str(refused.value)
    assert line.startswith("deployment mine: schedules[0]: ") and part in line and "\n" not in line


def hours(schedule, day: datetime, zone: str = ZONE) -> list[str]:
    """When a schedule fires on a day of a zone, with the offset to UTC."""
    from zoneinfo import ZoneInfo

    local = day.replace(tzinfo=ZoneInfo(zone))
    end = local + timedelta(hours=23, minutes=59)
    dates = asyncio.run(schedule.get_dates(n=200, start=local, end=end))
    return [date.astimezone(ZoneInfo(zone)).strftime("%H:%M%z") for date in dates]


SPRING, AUTUMN = datetime(2027, 3, 28), datetime(2027, 10, 31)


def test_a_daily_schedule_fires_once_on_the_days_clocks_change():
    from prefect.server.schemas.schedules import CronSchedule, IntervalSchedule

    half_past_two = CronSchedule(cron="30 2 * * *", timezone=ZONE)
    assert hours(half_past_two, SPRING) == ["03:30+0200"] and hours(half_past_two, AUTUMN) == ["02:30+0200"]
    nine = IntervalSchedule(
        interval=timedelta(days=1), anchor_date=datetime(2027, 1, 1, 8, tzinfo=UTC), timezone=ZONE
    )
    assert hours(nine, SPRING) == ["09:00+0200"] and hours(nine, AUTUMN) == ["09:00+0100"]


def test_the_repeated_hour_is_skipped_in_a_named_zone_and_not_in_utc():
    """docs/schedule.md says so; when Prefect mends it, the page changes."""
    from prefect.server.schemas.schedules import CronSchedule, IntervalSchedule

    anchor = datetime(2027, 1, 1, tzinfo=UTC)
    for zone, fired in ((ZONE, 24), ("UTC", 25)):
        cron = CronSchedule(cron="0 * * * *", timezone=zone)
        interval = IntervalSchedule(interval=timedelta(hours=1), anchor_date=anchor, timezone=zone)
        assert len(hours(cron, AUTUMN)) == len(hours(interval, AUTUMN)) == fired


def test_shipped_schedules_and_those_of_the_docs_avoid_the_hours_that_clocks_change():
    shipped = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    for entry in shipped:
        for schedule in entry["schedules"]:
            assert schedule["timezone"] == "UTC" or schedule["cron"].split()[1].isdigit()
