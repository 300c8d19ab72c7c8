"""Real processes, killed at random: every judgement once, none lost, none invented, at most a batch asked again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import sqlalchemy as sa

from judges import Ledger
from judges.ledger import schema
from judges.ledger.reading import find_label_set, labelled_pairs

BATCH_PAIRS = 4

# Labels pairs with a judge that writes down every call before it answers.
WORKER = """
import os, sys, time
from constitution import ComparisonPrinciple, Constitution
from judges import LabelSettings, Ledger, Pair, ScriptedJudge, label_pairs

url, asked, n = sys.argv[1], sys.argv[2], int(sys.argv[3])
book = os.open(asked, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

def answer(call):
    return 0.9 if call.messages[-1]["content"].split("\\n(A) ")[1].startswith("A long") else 0.1

class Judge(ScriptedJudge):
    def ask(self, calls):
        os.write(book, "".join(call.digest + "\\n" for call in calls).encode())
        time.sleep(0.005)
        return super().ask(calls)

pairs = (
    Pair(id=f"pair-{i:05d}", prompt=({"role": "user", "content": f"Question {i}"},), a=f"A long one {i}", b=f"No {i}")
    for i in range(n)
)
principles = tuple(ComparisonPrinciple(id=i, question=f"Which is more {i}?", dimension="x") for i in ("kind", "long"))
print("started", flush=True)
with Ledger.open(url) as ledger:
    report = label_pairs(
        pairs,
        constitution=Constitution(name="t", metadata={}, comparison=principles),
        judge=Judge(answer),
        ledger=ledger,
        settings=LabelSettings(templates="microworld", batch_pairs=int(sys.argv[4])),
    )
print(report.pairs, report.asked, flush=True)
"""


def start(url: str, asked: Path, n: int) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, url, str(asked), str(n), str(BATCH_PAIRS)],
        stdout=subprocess.PIPE,
        text=True,
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
@pytest.mark.timeout(900)
def test_killed_at_random_points_and_started_again(ledger_url, tmp_path):
    kills = 50 if ledger_url.startswith("sqlite") else 15
    pairs = kills * 40
    asked = tmp_path / "asked"
    dice = random.Random(7)
    killed = 0
    lost_before = 0
    while killed < kills:
        process = start(ledger_url, asked, pairs)
        time.sleep(dice.uniform(0.0, 0.25))
        process.send_signal(signal.SIGKILL)
        if process.wait() == 0:
            break  # done before it could be killed
        killed += 1
        lost = sum(1 for _ in asked.open()) - stored(ledger_url) if asked.exists() else 0
        # What was asked and not stored: at most the one batch in flight at each kill.
        assert lost - lost_before <= 2 * BATCH_PAIRS
        lost_before = lost
    last = start(ledger_url, asked, pairs)
    assert last.wait(600) == 0
    check_complete(ledger_url, pairs)
    times = Counter(asked.read_text().split())
    assert len(times) == 2 * pairs
    assert killed > kills // 2
    assert sum(times.values()) - 2 * pairs <= 2 * BATCH_PAIRS * killed


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
