"""Run directories: the record of every attempt at a run, and where its stages lie.

    <runs_dir>/<name>/
        run.json                    current stages, and one entry per attempt
        history/0001/               that attempt's config.yaml, constitution.json, summary.json
        <stage>/<key12>/            outputs, log.txt, and manifest.json once finished
        ledger.db                   judgements and labels
        summary.json, report.html   of the latest finished attempt

A stage's folder is named by its key, the digest of all that decides its result. An edited constitution gives
the stages that depend on it new keys and so new folders; the old ones stay beside them.

Where `runs_dir` is a URL, this is the folder on this machine, and `flows.runs.store` copies it there.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from common.files import write_atomically, write_json
from flows.errors import FlowError, RunBusy
from flows.runs.digests import digest_path
from flows.runs.manifest import NAME as MANIFEST
from flows.runs.manifest import Manifest
from flows.runs.progress import Progress
from flows.runs.store import RunStore

KEY_LENGTH = 12
AttemptStatus = Literal["running", "finished", "failed", "cancelled"]


@dataclass(kw_only=True)
class Attempt:
    """One start of a run. An attempt that was killed stays "running" until the next one begins."""

    number: int
    started_at: str
    constitution: Mapping[str, Any]
    status: AttemptStatus = "running"
    finished_at: str | None = None
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    error: str | None = None


class RunDirectory:
    """A run's folder. Reading needs no lock; `working` takes it for one attempt."""

    def __init__(self, path: Path, store: RunStore | None = None) -> None:
        self.path = path
        self.store = store

    @property
    def record_path(self) -> Path:
        return self.path / "run.json"

    def stage_path(self, stage: str, key: str) -> Path:
        """The folder of a stage with this key."""
        return self.path / stage / key[:KEY_LENGTH]

    def finished(self, stage: str, key: str) -> Manifest | None:
        """The manifest of a finished stage, or None. A folder whose outputs are gone is not finished.

        A stage that is finished at the URL is finished; its outputs are here once `fetch` brought them.
        """
        directory = self.stage_path(stage, key)
        manifest = Manifest.read(directory)
        whole = manifest is not None and all((directory / f.path).exists() for f in manifest.outputs.values())
        if not whole and self.store is not None and self.store.has_stage(self._name(directory)):
            self.store.pull(self.path, f"{self._name(directory)}/{MANIFEST}")
            manifest, whole = Manifest.read(directory), True
        return manifest if manifest is not None and whole and manifest.key == key else None

    def fetch(self, stage: str, manifest: Manifest, *, models: bool) -> None:
        """Download what this machine lacks of a stage's outputs: its files, or also its `models`, which are folders.

        Raises FlowError, also when what came is not what the manifest says.
        """
        if self.store is None:
            return
        directory = self.stage_path(stage, manifest.key)
        for record in manifest.outputs.values():
            path = directory / record.path
            # Outputs that are folders are models; their names have no suffix.
            if _is_here(path, record.digest) or (not path.suffix and not models):
                continue
            self.store.pull(self.path, f"{self._name(directory)}/{record.path}")
            if digest_path(path) != record.digest:
                raise FlowError(
                    f"{self.store.url}/{self._name(path)}: is not what its manifest says; delete the stage there"
                )

    def mirror(self, stage: str, manifest: Manifest, progress: Progress) -> None:
        """Copy a finished stage to the URL, unless it is there."""
        name = self._name(self.stage_path(stage, manifest.key))
        if self.store is not None and not self.store.has_stage(name):
            self.store.push_stage(self.path, name, progress)

    def forget(self, stage: str, key: str) -> None:
        """Remove a stage's folder, so that it runs from its beginning."""
        directory = self.stage_path(stage, key)
        if self.store is not None:
            self.store.forget_stage(self._name(directory))
        (directory / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(directory, ignore_errors=True)

    def current(self) -> dict[str, str]:
        """Stage to key (12 digits) of the latest result of each stage."""
        return dict(self._read()["current"])

    def attempts(self) -> list[Attempt]:
        """All attempts, oldest first."""
        return [Attempt(**entry) for entry in self._read()["attempts"]]

    def history(self, attempt: Attempt) -> Path:
        """The folder of an attempt's config, constitution and summary."""
        return self.path / "history" / f"{attempt.number:04d}"

    @contextmanager
    def working(self, constitution: Mapping[str, Any]) -> Iterator[Attempt]:
        """Take the run directory for one attempt and note how it ends.

        Raises RunBusy when another process works in it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with self._lock(), self._mirrored():
            record = self._read()
            for earlier in record["attempts"]:
                if earlier["status"] == "running":
                    earlier.update(
                        status="failed", error="ended without a word (killed, or the machine stopped)"
                    )
            attempt = Attempt(
                number=len(record["attempts"]) + 1, started_at=utc_now(), constitution=constitution
            )
            record["attempts"].append(asdict(attempt))
            write_json(self.record_path, record)
            self.history(attempt).mkdir(parents=True, exist_ok=True)
            try:
                yield attempt
            except Exception as error:
                self._close(attempt, "failed", " ".join(str(error).split())[:2000] or type(error).__name__)
                raise
            except BaseException as stop:
                self._close(attempt, "cancelled", type(stop).__name__)
                raise
            self._close(attempt, "finished", None)

    def note_stage(self, attempt: Attempt, stage: str, manifest: Manifest, *, reused: bool) -> None:
        """Make a finished stage the current one."""
        key = manifest.key[:KEY_LENGTH]
        attempt.stages[stage] = {"key": key, "reused": reused, "seconds": manifest.seconds}
        record = self._read()
        record["current"][stage] = key
        record["attempts"][attempt.number - 1] = asdict(attempt)
        write_json(self.record_path, record)
        self._push_record()

    def _close(self, attempt: Attempt, status: AttemptStatus, error: str | None) -> None:
        attempt.status, attempt.error, attempt.finished_at = status, error, utc_now()
        record = self._read()
        record["attempts"][attempt.number - 1] = asdict(attempt)
        write_json(self.record_path, record)

    def _read(self) -> dict[str, Any]:
        try:
            record = json.loads(self.record_path.read_text(encoding="utf-8"))
            if record["schema_version"] != 1:
                raise ValueError(f"schema_version {record['schema_version']} is not 1")
        except FileNotFoundError:
            return {"schema_version": 1, "name": self.path.name, "current": {}, "attempts": []}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FlowError(f"{self.record_path}: not a run record: {error}") from error
        return record

    def _name(self, path: Path) -> str:
        return path.relative_to(self.path).as_posix()

    @contextmanager
    def _mirrored(self) -> Iterator[None]:
        """The record as the URL has it, and back there when the attempt has ended."""
        if self.store is None:
            yield
            return
        with self.store.lock():
            if (record := self.store.read("run.json")) is not None:
                write_atomically(self.record_path, record.decode("utf-8"))
                self.store.pull_tree(self.path, "history")
            try:
                yield
            finally:
                self._push_record()

    def _push_record(self) -> None:
        if self.store is not None:
            history = [self._name(p) for p in sorted((self.path / "history").rglob("*")) if p.is_file()]
            # Those of the latest attempt; earlier ones are there.
            latest = history[-1].rsplit("/", 1)[0] if history else ""
            names = [name for name in history if name.startswith(f"{latest}/")]
            self.store.put(self.path, [*names, "summary.json", "report.html", "run.json"])

    @contextmanager
    def _lock(self) -> Iterator[None]:
        path = self.path / ".lock"
        with path.open("a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                holder = file.read().strip() or "unknown"
                raise RunBusy(f"{self.path}: process {holder} works in this run directory") from None
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield


def _is_here(path: Path, digest: str) -> bool:
    """Whether a file is here, or a model whole: one of its files may have come before it."""
    if not path.is_dir():
        return path.exists()
    try:
        return digest_path(path) == digest
    except FlowError:
        return False


def utc_now() -> str:
    """The time in ISO 8601, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@contextmanager
def only_one(path: Path, message: str) -> Iterator[None]:
    """Hold a lock file that the kernel takes back when this process dies. Raises RunBusy where another holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise RunBusy(f"{message} (process {file.read().strip() or 'unknown'})") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
