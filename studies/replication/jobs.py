"""Jobs of the study, each a process that ends in one JSON row; finished ones are never run again."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.files import write_atomically

_POLL_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Job:
    """One measurement: `kind` names the function that makes it, `settings` are its keyword arguments."""

    name: str
    kind: str
    seed: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """What decides the row, as JSON."""
        return json.loads(json.dumps({"kind": self.kind, "seed": self.seed, "settings": self.settings}))


@dataclass(frozen=True, kw_only=True)
class Study:
    """The study's folder: `rows/` (results), `work/` (models, answers, logs), `runs/` (pipelines)."""

    root: Path

    def work(self, name: str) -> Path:
        return self.root / "work" / name

    def row(self, name: str) -> dict[str, Any]:
        """The row of a finished job. Raises FileNotFoundError."""
        return json.loads((self.root / "rows" / f"{name}.json").read_text(encoding="utf-8"))

    def finished(self, job: Job) -> bool:
        """Whether there is a row made with these very settings."""
        try:
            row = self.row(job.name)
        except FileNotFoundError:
            return False
        return {key: row[key] for key in ("kind", "seed", "settings")} == job.record()


def perform(study: Study, job: Job, function: Any) -> None:
    """Run a job in this process and write its row. What an interrupted attempt left is gone on with."""
    folder = study.work(job.name)
    record_path = folder / "job.json"
    if folder.exists() and (
        not record_path.exists() or json.loads(record_path.read_text(encoding="utf-8")) != job.record()
    ):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _write(record_path, job.record())
    began = time.perf_counter()
    metrics = function(study, job.name, job.seed, **job.settings)
    row = {
        "job": job.name,
        **job.record(),
        "code": code_version(),
        "seconds": round(time.perf_counter() - began, 1),
        "metrics": metrics,
    }
    (study.root / "rows").mkdir(exist_ok=True)
    _write(study.root / "rows" / f"{job.name}.json", row)


def run_all(study: Study, jobs: Sequence[Job], *, command: Sequence[str], parallel: int, prefix: str) -> int:
    """Run what is not finished, in order, as soon as what a job needs is there. Returns how many failed.

    `command` runs one job when its name is appended; `prefix` is put before it (`nice`, say).
    """
    waiting = [job for job in jobs if not study.finished(job)]
    print(f"{len(jobs) - len(waiting)} of {len(jobs)} jobs are finished", flush=True)
    done = {job.name for job in jobs} - {job.name for job in waiting}
    running: dict[str, tuple[Job, subprocess.Popen[bytes], float]] = {}
    failed: set[str] = set()
    try:
        while waiting or running:
            for name, (job, process, began) in list(running.items()):
                if process.poll() is None:
                    continue
                del running[name]
                (done if study.finished(job) else failed).add(name)
                outcome = "done" if name in done else f"FAILED, see {study.root / 'logs' / name}.txt"
                left = f"{len(waiting) + len(running)} left"
                print(f"{name:<28} {time.monotonic() - began:6.0f} s  {outcome}; {left}", flush=True)
            lost = [job for job in waiting if failed & set(job.needs)]
            for job in lost:
                waiting.remove(job)
                failed.add(job.name)
                print(f"{job.name:<28} left out: a job that it needs failed", flush=True)
            ready = [job for job in waiting if set(job.needs) <= done]
            for job in ready[: parallel - len(running)]:
                waiting.remove(job)
                running[job.name] = (job, _start(study, job, command, prefix), time.monotonic())
            time.sleep(_POLL_SECONDS)
    finally:
        for _, process, _ in running.values():
            process.terminate()
    return len(failed)


def _start(study: Study, job: Job, command: Sequence[str], prefix: str) -> subprocess.Popen[bytes]:
    logs = study.root / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    with (logs / f"{job.name}.txt").open("ab") as log:
        return subprocess.Popen(
            [*shlex.split(prefix), *command, job.name],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            # Tiny models gain nothing from threads, and threads that wait lose much (docs/reinforcement.md).
            env={"OMP_NUM_THREADS": "1", **os.environ},
        )


def code_version() -> str:
    """The commit of the packages that computed, with a mark where their files differ from it."""
    import flows

    folder = Path(flows.__file__).parents[1]

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments], stdout=subprocess.PIPE, text=True, check=False
        ).stdout.strip()

    rooms = ("common", "constitution", "engines", "judges", "training", "flows", "microworld")
    changed = git("status", "--porcelain", "--untracked-files=no", "--", *rooms)
    return (git("rev-parse", "--short=12", "HEAD") or "unknown") + ("+changes" if changed else "")


def _write(path: Path, value: Any) -> None:
    write_atomically(path, json.dumps(value, indent=1) + "\n")
