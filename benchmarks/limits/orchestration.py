"""What Prefect costs: the labels flow over scripted judgements, beside the very same work without Prefect.

    python -m benchmarks.limits.orchestration [--judgements 100000] [--rate 1000] [--rounds 1]

Both sides run the stage `labels` on the same pairs into a new SQLite ledger each, and make the labels' audit and report
card: `with` as the flow, under a server as `charter ui` starts it (its database in SQLite, events, task runs and
artifacts recorded), `without` as plain calls whose views nobody sees. The judge
is a script that answers at `--rate` judgements a second, which is what one good GPU gives of an 8B judge; `--rate 0`
answers at once, and so shows the overhead against a wall time that no judge has. The order of the sides turns round
with every round.

Writes benchmarks/results/orchestration.json: wall seconds, overhead, growth of Prefect's database, the promises.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import statistics
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.harness.machine import RESULTS, machine

OUT = RESULTS / "orchestration.json"
PROMISES = {"overhead_percent": 2.0, "database_mb": 10.0}
SHARD_PAIRS = 256


class PacedJudge:
    """A scripted judge that takes as long for a batch as a judge of `rate` judgements a second; 0 takes no time."""

    def __init__(self, rate: float) -> None:
        from judges import ScriptedJudge

        self._rate = rate
        self._judge = ScriptedJudge(_prefer_alpha)

    @property
    def identity(self) -> Any:
        return self._judge.identity

    def ask(self, calls: Any) -> list[Any]:
        began = time.perf_counter()
        readings = self._judge.ask(calls)
        if self._rate:
            time.sleep(max(0.0, len(calls) / self._rate - (time.perf_counter() - began)))
        return readings


def _prefer_alpha(call: Any) -> float:
    """80% for the answer that says alpha, in whichever place it stands."""
    text = call.text or " ".join(message["content"] for message in call.messages)
    return 0.8 if text.index("alpha") < text.index("beta") else 0.2


def write_pairs(path: Path, n: int) -> None:
    """`n` pairs of some sixty words each."""
    from common.files import write_jsonl

    def answer(i: int, side: str) -> str:
        return " ".join(f"{side}{i}-{word}" for word in range(24))

    rows = (
        {
            "id": f"p{i}",
            "prompt_id": f"q{i}",
            "prompt": [{"role": "user", "content": f"Question {i}: how is thing {i} done?"}],
            "a": answer(i, "alpha"),
            "b": answer(i, "beta"),
            "meta": {},
        }
        for i in range(n)
    )
    write_jsonl(path, rows)


def open_run(folder: Path, pairs: Path, config_path: Path, **how: Any) -> Any:
    """A session whose pairs are finished, as the stage `labels` meets it."""
    from contextlib import contextmanager

    from constitution import load
    from flows.config import load_config
    from flows.pipeline.session import Session
    from flows.runs.digests import digest_file
    from flows.runs.directory import RunDirectory
    from flows.runs.record import describe_constitution
    from flows.stages.contract import Artifact

    @contextmanager
    def opened() -> Any:
        config = load_config(config_path, [f"runs_dir={folder}", f"labels.shard_pairs={SHARD_PAIRS}"])
        constitution, run = load(config.constitution), RunDirectory(config.run_directory)
        with run.working(describe_constitution(constitution)) as attempt:
            found = Artifact(path=str(pairs), digest=digest_file(pairs))
            yield Session(
                config=config,
                constitution=constitution,
                directory=run,
                attempt=attempt,
                outputs={("pairs", "pairs"): found},
                **how,
            )

    return opened()


def without(folder: Path, pairs: Path, config: Path) -> float:
    """Wall seconds of the plain stage and of the views that the flow publishes of its labels."""
    from flows.labelling.ledger import ledger_of
    from flows.orchestration.audit_artifacts import audit_views
    from flows.stages import labels
    from judges import Ledger

    with open_run(folder, pairs, config) as session:
        began = time.perf_counter()
        made = session.execute(labels.STAGE).manifest.metrics["label_set"]
        with Ledger.open(ledger_of(session.config)) as ledger:
            audit_views(ledger, made, title="labels", sampled=session.config.audit.sample, seed=0)
        return time.perf_counter() - began


def with_prefect(folder: Path, pairs: Path, config: Path) -> float:
    """Wall seconds of the flow, its start and end and what it reports included."""
    from flows.config.forms import RunRequest
    from flows.orchestration.artifacts import PrefectReporter
    from flows.orchestration.rlaif import run_step, shards_told
    from flows.stages import labels

    request = RunRequest(config=str(config))
    with open_run(folder, pairs, config, reporter=PrefectReporter(), shards=shards_told) as session:
        began = time.perf_counter()
        run_step(request, session, labels.STAGE)
        return time.perf_counter() - began


def settle(database: Path, tasks: int) -> int:
    """Bytes of Prefect's database when every task run of it has been recorded and nothing more arrives."""
    seen, size = -1, 0
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with sqlite3.connect(database) as connection:
            done = connection.execute(
                "select count(*) from task_run where state_type = 'COMPLETED'"
            ).fetchone()[0]
            pages, page = (
                connection.execute(f"pragma {p}").fetchone()[0] for p in ("page_count", "page_size")
            )
        if done >= tasks and pages * page == size == seen:
            break
        seen, size = size, pages * page
        time.sleep(2.0)
    return size


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    from flows.labelling import shard as label_shards
    from flows.orchestration import server as serving

    # Before Prefect is imported: where its database lies.
    home = folder / "prefect"
    home.mkdir()
    os.environ |= {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    }
    label_shards.make_judge = lambda settings, **_: PacedJudge(
        options.rate
    )  # the one part that is not a run's own
    config = Path(__file__).parents[2] / "configs" / "microworld.yaml"
    pairs, warm = folder / "pairs.jsonl", folder / "warm.jsonl"
    n = options.judgements // 2 // options.principles
    write_pairs(pairs, n)
    write_pairs(warm, 2 * SHARD_PAIRS)
    log = folder / "server.log"
    seconds: dict[str, list[float]] = {"with": [], "without": []}
    grown: list[float] = []
    with serving.server(port=serving.free_port(0), log=log, services=True) as server:
        os.environ["PREFECT_API_URL"] = server.url
        server.wait()
        without(folder / "warm-without", warm, config)
        with_prefect(folder / "warm-with", warm, config)
        tasks, shards = 2, -(-n // SHARD_PAIRS)
        for number in range(options.rounds):
            sides = ("with", "without") if number % 2 == 0 else ("without", "with")
            for side in sides:
                where = folder / f"{side}-{number}"
                if side == "without":
                    seconds[side].append(without(where, pairs, config))
                    continue
                before = settle(home / "prefect.db", tasks)
                seconds[side].append(with_prefect(where, pairs, config))
                tasks += shards
                grown.append((settle(home / "prefect.db", tasks) - before) / 1e6)
            print({side: round(found[-1], 2) for side, found in seconds.items() if found}, grown, flush=True)
    asked = f"({n} pairs, {options.principles} principles, both orders) at {options.rate:g} a second"
    ours, plain = (statistics.median(seconds[side]) for side in ("with", "without"))
    return {
        "what": f"{options.judgements} scripted judgements {asked}, {shards} shards of {SHARD_PAIRS} pairs, "
        "SQLite ledger and SQLite server",
        "ours": round(ours, 3),
        "peer": round(plain, 3),
        "ratio": round(ours / plain, 4),
        "overhead_s": round(ours - plain, 3),
        "overhead_percent": round(100 * (ours - plain) / plain, 2),
        "database_mb": round(max(grown), 2),
        "promises": PROMISES,
        "seconds": {side: [round(s, 3) for s in found] for side, found in seconds.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--judgements", type=int, default=100_000)
    parser.add_argument("--rate", type=float, default=1000.0, help="judgements a second; 0: at once")
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    options.principles = 2  # of the configuration, configs/microworld.yaml
    with tempfile.TemporaryDirectory() as directory:
        found = measure(options, Path(directory))
    record = json.loads(OUT.read_text()) if OUT.exists() else {}
    key = "instant" if options.rate == 0 else f"{options.rate:g} a second"
    record[key] = {**found, "machine": machine(), "versions": {"prefect": metadata.version("prefect")}}
    OUT.write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
