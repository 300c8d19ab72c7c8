"""A labelling process killed with SIGKILL at random points and started again until it is done.

    python -m benchmarks.limits.kill_labelling [--kills 50] [--ledger URL] [--seed 7]

Counts, after every kill, what the judge was asked and what the ledger holds, and at the end looks at every label.
Writes benchmarks/results/kill_labelling.json and exits with 1 when a judgement was lost, invented or stored twice,
or when a kill cost more than the batch in flight. Without `--ledger`, a SQLite file of its own.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks.harness import duel
from benchmarks.harness.machine import REPOSITORY, RESULTS, machine
from judges import Ledger
from judges.ledger import schema
from judges.ledger.reading import find_label_set, labelled_pairs

WORKER = REPOSITORY / "tests" / "judges" / "labelling_worker.py"
BATCH_PAIRS = 4
PAIRS_PER_KILL = 40
LONGEST_LIFE_S = 0.15
"""From the first call that it asks, or from its start, to its end."""


def start(url: str, book: Path, pairs: int) -> subprocess.Popen[str]:
    command = [sys.executable, str(WORKER), url, str(book), str(pairs), str(BATCH_PAIRS)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
    assert process.stdout is not None
    if process.stdout.readline() != "started\n":
        raise SystemExit("the labelling process did not start")
    return process


def stored(url: str) -> int:
    with Ledger.open(url) as ledger, ledger.read() as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(schema.judgements)).scalar_one()


def asked(book: Path) -> Counter[str]:
    """How often each call was asked."""
    return Counter(book.read_text().split() if book.exists() else ())


def _size(book: Path) -> int:
    return book.stat().st_size if book.exists() else 0


def kill_until_done(url: str, book: Path, *, kills: int, seed: int) -> dict[str, Any]:
    """What was asked, stored and lost over the whole story."""
    pairs, dice = kills * PAIRS_PER_KILL, random.Random(seed)
    killed, lost_per_kill = 0, []
    while killed < kills:
        process = start(url, book, pairs)
        # Some die while they open the ledger, most while they work.
        before, patience = _size(book), 60 if dice.random() < 0.8 else 0
        deadline = time.monotonic() + patience
        while _size(book) == before and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(dice.uniform(0.0, LONGEST_LIFE_S))
        process.send_signal(signal.SIGKILL)
        if process.wait() == 0:
            break  # done before it could be killed
        killed += 1
        lost_per_kill.append(asked(book).total() - stored(url) - sum(lost_per_kill))
    if start(url, book, pairs).wait() != 0:
        raise SystemExit("the last run failed")
    with Ledger.open(url) as ledger:
        labels = list(labelled_pairs(ledger, find_label_set(ledger)))
        with ledger.read() as connection:
            claims = connection.execute(sa.select(sa.func.count()).select_from(schema.claims)).scalar_one()
    times = asked(book)
    right = [f"pair-{i:05d}" for i in range(pairs)] == [x.pair.id for x in labels] and all(
        x.label.status == "ok" and x.label.p is not None and abs(x.label.p - 0.9) < 1e-6 for x in labels
    )
    return {
        "pairs": pairs,
        "killed": killed,
        "calls_needed": 2 * pairs,
        "calls_asked": times.total(),
        "distinct_calls_asked": len(times),
        "judgements_stored": stored(url),
        "most_lost_by_a_kill": max(lost_per_kill, default=0),
        "calls_of_a_batch": 2 * BATCH_PAIRS,
        "every_label_right": right,
        "claims_left": claims,
    }


def holds(found: dict[str, Any]) -> bool:
    """Every judgement once, none lost, none invented, no kill dearer than a batch."""
    needed = found["calls_needed"]
    return bool(
        found["every_label_right"]
        and found["claims_left"] == 0
        and found["distinct_calls_asked"] == found["judgements_stored"] == needed
        and found["most_lost_by_a_kill"] <= found["calls_of_a_batch"]
        and found["calls_asked"] - needed <= found["calls_of_a_batch"] * found["killed"]
        and found["killed"] > 0
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--ledger", help="URL of an empty ledger")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, default=RESULTS / "kill_labelling.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        url = arguments.ledger or f"sqlite:///{name}/ledger.db"
        found = kill_until_done(url, Path(name) / "asked", kills=arguments.kills, seed=arguments.seed)
    result = {
        "what": "calls that a labelling process asks which is killed again and again, and that one asks which is not",
        **duel.against(found["calls_asked"], found["calls_needed"], "not_killed"),
        "ledger": url.split(":")[0],
        **found,
        "holds": holds(found),
        "machine": machine(),
        "versions": duel.versions("sqlalchemy"),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))
    sys.exit(0 if result["holds"] else 1)


if __name__ == "__main__":
    main()
