"""Real processes, killed at random: every judgement once, none lost, none invented, at most a batch asked again."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import sqlalchemy as sa

from judges import LabelSettings, Ledger, LedgerError, ScriptedJudge, label_pairs
from judges.ledger import schema
from judges.ledger.reading import find_label_set, labelled_pairs

BATCH_PAIRS = 4

ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("labelling_worker.py")


def start(url: str, asked: Path, n: int) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, str(WORKER), url, str(asked), str(n), str(BATCH_PAIRS)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    return process


def stored(url: str) -> int:
    with Ledger.open(url) as ledger, ledger.read() as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(schema.judgements)).scalar_one()


def check_complete(url: str, n: int) -> None:
    with Ledger.open(url) as ledger:
        labels = list(labelled_pairs(ledger, find_label_set(ledger)))
        with ledger.read() as connection:
            claims = connection.execute(sa.select(sa.func.count()).select_from(schema.claims)).scalar_one()
    assert [x.pair.id for x in labels] == [f"pair-{i:05d}" for i in range(n)]
    assert {x.label.status for x in labels} == {"ok"}
    assert all(x.label.p == pytest.approx(0.9) for x in labels)
    assert claims == 0
    assert stored(url) == 2 * n


@pytest.mark.slow
def test_killed_at_random_points_and_started_again(ledger_url, tmp_path):
    """A short form of the benchmark, which kills fifty times and checks every label and every count."""
    kills = 6 if ledger_url.startswith("sqlite") else 3
    out = tmp_path / "found.json"
    command = [
        sys.executable,
        "-m",
        "benchmarks.limits.kill_labelling",
        "--kills",
        str(kills),
        "--ledger",
        ledger_url,
        "--out",
        str(out),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(out.read_text())
    assert found["killed"] > kills // 2
    assert found["judgements_stored"] == found["calls_needed"] == 2 * found["pairs"]
    check_complete(ledger_url, found["pairs"])


def test_workers_on_one_ledger_share_the_work(ledger_url, tmp_path):
    asked = tmp_path / "asked"
    workers = [start(ledger_url, asked, 200) for _ in range(3)]
    reports = [worker.communicate(timeout=120)[0].split() for worker in workers]
    assert [int(pairs) for pairs, _ in reports] == [200, 200, 200]
    assert sum(int(count) for _, count in reports) == 400
    assert set(Counter(asked.read_text().split()).values()) == {1}
    check_complete(ledger_url, 200)


def test_an_interrupt_keeps_what_the_judge_was_answering(ledger_url, tmp_path):
    asked = tmp_path / "asked"
    process = start(ledger_url, asked, 4000)
    while not asked.exists() or not asked.stat().st_size:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    process.wait(60)
    assert stored(ledger_url) == sum(1 for _ in asked.open())


class Counting(ScriptedJudge):
    """Prefers the long answer, and counts."""

    def __init__(self):
        super().__init__(
            lambda c: 0.9 if c.messages[-1]["content"].split("\n(A) ")[1][:6] == "A long" else 0.1
        )
        self.asked = Counter()

    def ask(self, calls):
        self.asked.update(call.digest for call in calls)
        return super().ask(calls)


SETTINGS = LabelSettings(templates="microworld", batch_pairs=4)


def limit_pages(ledger: Ledger, more: int) -> None:
    """Lets a SQLite ledger grow by `more` pages at the most, on every connection: the error is a full disk's."""
    with ledger.read() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar() + more
    ledger._engine.dispose()
    sa.event.listen(
        ledger._engine, "connect", lambda c, _: c.execute(f"PRAGMA max_page_count={pages}").fetchall()
    )


def test_a_run_on_a_full_disk_stops_and_goes_on_when_there_is_space(tmp_path, make_constitution, make_pairs):
    judge, path = Counting(), str(tmp_path / "ledger.db")
    what = {"constitution": make_constitution(long="Longer?"), "judge": judge, "settings": SETTINGS}
    with Ledger.open(path) as ledger:
        limit_pages(ledger, 20)
        with pytest.raises(LedgerError, match="no space is left"):
            label_pairs(make_pairs(400), ledger=ledger, **what)
    kept = stored(path)
    assert 0 < kept < 800
    assert kept % (2 * SETTINGS.batch_pairs) == 0
    with Ledger.open(path) as ledger:
        report = label_pairs(make_pairs(400), ledger=ledger, **what)
    assert report.asked == 800 - kept
    assert judge.asked.total() - 800 <= 2 * SETTINGS.batch_pairs  # the batch that found no room
    check_complete(path, 400)


def hold(url: str, until: threading.Event, held: threading.Event) -> None:
    """Keeps everyone else from writing judgements until told."""
    if url.startswith("sqlite"):
        blocker = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
    else:
        import psycopg

        blocker = psycopg.connect(url)
        blocker.execute("LOCK TABLE judgements IN EXCLUSIVE MODE")
    held.set()
    until.wait(60)
    blocker.close()


def test_a_run_on_a_locked_ledger_stops_and_goes_on_later(
    ledger_url, tmp_path, make_constitution, make_pairs, monkeypatch
):
    monkeypatch.setattr("judges.ledger.connection.BUSY_TIMEOUT_S", 0.3)
    judge = Counting()
    what = {"constitution": make_constitution(long="Longer?"), "judge": judge, "settings": SETTINGS}
    until, held = threading.Event(), threading.Event()
    blocker = threading.Thread(target=hold, args=(ledger_url, until, held))

    def lock_once(report):
        if report.pairs >= 16 and not held.is_set():
            blocker.start()
            held.wait(10)

    with Ledger.open(ledger_url) as ledger:
        try:
            with pytest.raises(LedgerError, match="another process has held it"):
                label_pairs(make_pairs(40), ledger=ledger, on_progress=lock_once, **what)
        finally:
            until.set()
            blocker.join()
        kept = stored(ledger_url)
        assert 0 < kept < 80
        assert kept % (2 * SETTINGS.batch_pairs) == 0
        report = label_pairs(make_pairs(40), ledger=ledger, **what)
    assert report.asked == 80 - kept
    check_complete(ledger_url, 40)
