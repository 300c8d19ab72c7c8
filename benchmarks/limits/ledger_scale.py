"""A million judgements in the ledger, on SQLite and on PostgreSQL: how fast, and whether memory stays flat.

    python -m benchmarks.limits.ledger_scale [--databases sqlite postgresql] [--sizes 100000 300000 1000000]

Every database and size gets a process of its own, which writes the judgements, then the labels of their pairs with
texts and memberships, then looks for what is missing as a resumed run does (a tenth is), asks for the statistics of
the label set, and exports JSONL and Parquet. All of it goes through the ledger's own interface; making the rows is
not timed. Peak memory is that of the process, PostgreSQL's server apart. Writes
benchmarks/results/ledger_scale.json, keeping what is there of a database not measured now, and
docs/images/ledger_memory.png.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.harness import duel
from benchmarks.harness.machine import IMAGES, RESULTS, machine
from common.digest import digest
from judges import JudgeIdentity, Label, LabelSettings, Ledger, Pair, Reading, export_preferences
from judges.ledger import Batch, Judgement, LabelRow
from judges.ledger.rows import judge_digest
from judges.ledger.statistics import set_statistics

OUT = RESULTS / "ledger_scale.json"
PROMISED_ROWS_PER_S = 20_000
BATCH = 5_000
"""Judgements a transaction. What a labelling run commits by default, both orders of its pairs, is measured apart."""
RUN_BATCH, RUN_BATCHES = 2 * LabelSettings().batch_pairs, 50
JUDGE = JudgeIdentity(kind="scripted", model="scale", revision="1")
LABEL_SET, METHOD, PRINCIPLE = digest("set"), digest("method"), digest("principle")


def pair(i: int) -> Pair:
    text = f"Question {i}: how does one bake a loaf of bread that keeps for a week?"
    a = f"Answer {i}. Mix flour, water, salt and yeast, wait until it has doubled, and bake it for forty minutes."
    return Pair(id=f"pair-{i:08d}", prompt=({"role": "user", "content": text},), a=a, b=f"No {i}. Buy one.")


def keys(i: int) -> tuple[str, str]:
    return digest(["ab", i]), digest(["ba", i])


def judgements(i: int) -> list[Judgement]:
    """Both orders of pair number `i`."""
    return [
        Judgement(
            key=key,
            item=digest(["item", i]),
            principle_id="kind",
            principle=PRINCIPLE,
            shown=shown,
            prompt=digest(["prompt", i, shown]),
            judge=judge_digest(JUDGE),
            method=METHOD,
            reading=Reading(
                status="ok",
                logprobs=(-0.105360515 - i * 1e-9, -2.302585092),
                prompt_tokens=112,
                completion_tokens=1,
                latency_s=0.0055,
            ),
            created_at=time.time(),
        )
        for shown, key in zip(("ab", "ba"), keys(i), strict=True)
    ]


def label(i: int) -> LabelRow:
    made = Label(
        pair_id=f"pair-{i:08d}",
        p=0.9,
        status="ok",
        principles=("kind",),
        judgements=keys(i),
        digest=digest(["label", i]),
        p_ab=0.9,
        p_ba=0.9,
        p_raw=0.9,
        spread=0.0,
    )
    # The item's digest is that of its content, as an export looks it up.
    return LabelRow(
        label=made, item=pair(i).digest, principle_digests=(PRINCIPLE,), made_with=LABEL_SET, created_at=1.0
    )


class Clock:
    """Seconds of wall time and of this process's CPU, and peak memory, by phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.cpu_s: dict[str, float] = {}
        self.peak_mb: dict[str, int] = {}

    def run(self, phase: str, work: Callable[[], Any]) -> Any:
        """What `work` returns; its time is added to the phase."""
        started, cpu_started = time.perf_counter(), time.process_time()
        result = work()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - started
        self.cpu_s[phase] = self.cpu_s.get(phase, 0.0) + time.process_time() - cpu_started
        # Not ru_maxrss: a new process starts with its parent's, and the parent of these draws plots.
        self.peak_mb[phase] = duel.memory_mb("VmHWM")
        return result


def ranges(n: int, size: int) -> Iterator[range]:
    return (range(i, min(i + size, n)) for i in range(0, n, size))


def measure(url: str, n: int, folder: Path) -> dict[str, Any]:
    """Everything about `n` judgements (an even number) in the empty ledger at `url`."""
    clock, pairs = Clock(), n // 2
    in_run_batches = f"judgements, {RUN_BATCH} a transaction"
    with Ledger.open(url) as ledger:
        ledger.register(
            judges=[JUDGE],
            methods={METHOD: {"content": "scale"}},
            principles={PRINCIPLE: "Which is kinder?"},
            label_set=(LABEL_SET, {"judges": [judge_digest(JUDGE)], "method": METHOD}),
        )
        for part in ranges(pairs, BATCH // 2):
            batch = Batch(label_set=LABEL_SET, judgements=[j for i in part for j in judgements(i)])
            clock.run("judgements", lambda b=batch: ledger.add(b))
        for part in ranges(pairs, BATCH // 2):
            batch = Batch(
                label_set=LABEL_SET,
                labels=[label(i) for i in part],
                items=[pair(i) for i in part],
                members={f"pair-{i:08d}": digest(["label", i]) for i in part},
            )
            clock.run("labels", lambda b=batch: ledger.add(b))
        missing = 0
        for part in ranges(pairs + pairs // 10, BATCH // 2):
            digests, wanted = [digest(["label", i]) for i in part], [k for i in part for k in keys(i)]
            labels = clock.run("resume scan", lambda d=digests: ledger.labels(d))
            known = clock.run("resume scan", lambda w=wanted: ledger.readings(w))
            missing += len(digests) - len(labels)
            assert len(known) == 2 * len(labels)
        assert missing == pairs // 10
        figures = clock.run(
            "statistics",
            lambda: set_statistics(ledger, LABEL_SET, judges=[judge_digest(JUDGE)], method=METHOD),
        )
        assert (figures.judgements, figures.overall.labels) == (n, pairs)
        counts = clock.run("export", lambda: export_preferences(ledger, LABEL_SET, folder / "out"))
        assert counts == {"ok": pairs}
        sizes = {f"export_{s}_mb": (folder / f"out.{s}").stat().st_size / 2**20 for s in ("jsonl", "parquet")}
        for part in ranges(RUN_BATCH * RUN_BATCHES // 2, RUN_BATCH // 2):
            batch = Batch(
                label_set=LABEL_SET, judgements=[j for i in part for j in judgements(2 * pairs + i)]
            )
            clock.run(in_run_batches, lambda b=batch: ledger.add(b))
    rows = {"judgements": n, "labels": 3 * pairs, "resume scan": n + n // 10, "export": pairs}
    rows[in_run_batches] = RUN_BATCH * RUN_BATCHES
    return {
        "judgements": n,
        "seconds": {phase: round(s, 2) for phase, s in clock.seconds.items()},
        "cpu_s": {phase: round(s, 2) for phase, s in clock.cpu_s.items()},
        "rows_per_s": {phase: round(count / clock.seconds[phase]) for phase, count in rows.items()},
        "peak_mb": clock.peak_mb,
        **{name: round(mb) for name, mb in sizes.items()},
    }


def in_own_process(database: str, n: int) -> dict[str, Any]:
    """`measure` in a fresh process on a fresh ledger."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.limits.ledger_scale",
        "--worker",
        database,
        "--sizes",
        str(n),
    ]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(printed.splitlines()[-1])


def worker(database: str, n: int) -> dict[str, Any]:
    # A folder that PostgreSQL's own user may enter, on the disk that measurements are about.
    with tempfile.TemporaryDirectory(prefix="charter-scale-") as name:
        folder = Path(name)
        if database == "sqlite":
            found = measure(f"sqlite:///{folder}/ledger.db", n, folder)
            size = sum(p.stat().st_size for p in folder.glob("ledger.db*"))
            return {"database": f"sqlite {_sqlite_version()}", **found, "size_mb": round(size / 2**20)}
        import pgserver

        server = pgserver.get_server(folder / "pg")
        try:
            server.psql("CREATE DATABASE scale")
            found = measure(server.get_uri().replace("/postgres?", "/scale?"), n, folder)
            size = server.psql("SELECT pg_database_size('scale')").split()[2]
            release = server.psql("SHOW server_version").split()[2]
        finally:
            server.cleanup()
    return {"database": f"postgresql {release}", **found, "size_mb": round(int(size) / 2**20)}


def _sqlite_version() -> str:
    import sqlite3

    return sqlite3.sqlite_version


def plot(databases: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Peak memory against the number of judgements."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
    for name, measured in databases.items():
        axes.plot(
            [m["judgements"] for m in measured],
            [max(m["peak_mb"].values()) for m in measured],
            "o-",
            label=name,
        )
    axes.set(xlabel="judgements in the ledger", ylabel="peak memory (MB)", ylim=(0, None))
    axes.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:.0f}k")
    axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--databases", nargs="+", default=["sqlite", "postgresql"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[100_000, 300_000, 1_000_000])
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(worker(arguments.worker, arguments.sizes[0])))
        return
    databases = json.loads(arguments.out.read_text())["databases"] if arguments.out.is_file() else {}
    for database in arguments.databases:
        for n in arguments.sizes:
            found = in_own_process(database, n)
            print(json.dumps(found), flush=True)
            others = [m for m in databases.get(database, []) if m["judgements"] != n]
            databases[database] = sorted([*others, found], key=lambda m: m["judgements"])
            write(databases, arguments.out)


def write(databases: dict[str, list[dict[str, Any]]], out: Path) -> None:
    """The result so far, and its plot."""
    promises = {}
    for name, measured in databases.items():
        peaks = [max(m["peak_mb"].values()) for m in measured]
        promises[f"{name}: peak memory at the most to the fewest"] = round(peaks[-1] / peaks[0], 3)
        promises[f"{name}: judgements a second"] = measured[-1]["rows_per_s"]["judgements"]
    largest = {name: measured[-1] for name, measured in databases.items()}
    # The promise is about SQLite.
    rates = [largest[name]["rows_per_s"]["judgements"] for name in largest if name == "sqlite"]
    result = {
        "what": f"judgements a second into the largest SQLite ledger, {BATCH:,} a transaction, beside what is promised",
        **(duel.against(rates[0], PROMISED_ROWS_PER_S, "promised") if rates else {}),
        "databases": databases,
        "found": promises,
        "machine": machine(),
        "versions": duel.versions("sqlalchemy")
        | dict(measured["database"].split() for measured in largest.values()),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if out == OUT:
        plot(databases, IMAGES / "ledger_memory.png")


if __name__ == "__main__":
    main()
