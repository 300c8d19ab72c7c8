#!/usr/bin/env bash
# Prefect 3.9.1, Python 3.11, seen 2026-12-01: in a zone with summer time, hourly schedules skip the hour that comes
# twice in autumn, although IntervalSchedule's docstring says that an hourly schedule fires every UTC hour.
# Europe/Vienna, 2027-10-31, 23:00 to 04:00 UTC: cron and interval give 23 0 2 3 4; the same in UTC give 23 0 1 2 3 4.
# Fails (exit 1) when that changes. Takes about two minutes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check prefect==3.9.1
export PREFECT_HOME=$folder/home DO_NOT_TRACK=1
cat >"$folder/hours.py" <<'PY'
import asyncio
from datetime import UTC, datetime, timedelta

from prefect.server.schemas.schedules import CronSchedule, IntervalSchedule

START, END = datetime(2027, 10, 30, 23, tzinfo=UTC), datetime(2027, 10, 31, 4, tzinfo=UTC)
ANCHOR = datetime(2027, 1, 1, tzinfo=UTC)


def hours(schedule):
    dates = asyncio.run(schedule.get_dates(n=50, start=START, end=END))
    return " ".join(str(date.astimezone(UTC).hour) for date in dates)


for zone in ("Europe/Vienna", "UTC"):
    print(zone, "cron:", hours(CronSchedule(cron="0 * * * *", timezone=zone)))
    every = IntervalSchedule(interval=timedelta(hours=1), anchor_date=ANCHOR, timezone=zone)
    print(zone, "interval:", hours(every))
PY
"$folder/venv/bin/python" "$folder/hours.py" | tee "$folder/seen"
diff "$folder/seen" - <<'SEEN'
Europe/Vienna cron: 23 0 2 3 4
Europe/Vienna interval: 23 0 2 3 4
UTC cron: 23 0 1 2 3 4
UTC interval: 23 0 1 2 3 4
SEEN
