"""A run directory that also lies at a URL (s3://…, or any other file system of fsspec).

Work happens in a folder on this machine. A finished stage is copied to the URL, its files first and its manifest
last, so what was cut off on its way never looks finished. Another machine finds the manifests there, and
downloads what its stages need. Credentials come from the environment alone (AWS_… for S3).
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from common.files import replacing
from flows.errors import FlowError, RunBusy
from flows.runs.progress import Progress
from judges.ledger.claims import is_dead, retire, worker_name

LEASE_S = 300.0
"""A run's lock that nobody renewed for so long belonged to a machine that is gone."""
# What only an unfinished stage, or this machine, has a use for.
_NOT_COPIED = ("parts/*", "*/checkpoints/*", "checkpoints/*", "*.pid", "*.tmp")
_OBJECT_STORES = ("s3", "s3a", "gs", "gcs", "abfs", "az")


class RunStore:
    """One run's files at a URL without credentials. Every error is a FlowError of one line."""

    def __init__(self, url: str) -> None:
        """Raises FlowError where fsspec or the file system's own package is missing. Nothing is asked yet."""
        self.url = url.rstrip("/")
        try:
            import fsspec

            # Listings are asked anew: another machine may have written since.
            self._fs, self._root = fsspec.core.url_to_fs(
                self.url, use_listings_cache=False, skip_instance_cache=True
            )
        except (ImportError, ValueError) as error:
            hint = " (pip install 'charter[s3]')" if self.url.startswith("s3") else ""
            raise FlowError(f"runs_dir: {url}: {' '.join(str(error).split())}{hint}") from error
        self._holder = ""

    def check(self) -> None:
        """The bucket is there and lets us in. Raises FlowError."""
        bucket = self._root.split("/")[0]
        with self._one_line():
            if self.url.partition("://")[0] in _OBJECT_STORES and not self._fs.exists(bucket):
                raise FlowError(
                    f"runs_dir: {self.url}: no bucket {bucket}, or the credentials in the environment "
                    "may not see it; make it first"
                )

    def read(self, name: str) -> bytes | None:
        """A file's content, or None where there is none."""
        with self._one_line():
            try:
                return self._fs.cat_file(f"{self._root}/{name}")
            except FileNotFoundError:
                return None

    def write(self, name: str, data: bytes) -> None:
        """Write a small file. Object stores show it whole or not at all."""
        with self._one_line():
            path = f"{self._root}/{name}"
            self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._fs.pipe_file(path, data)

    def put(self, folder: Path, names: Sequence[str]) -> None:
        """Copy files of the run's folder that exist there."""
        for name in names:
            if (folder / name).is_file():
                self.write(name, (folder / name).read_bytes())

    def has_stage(self, name: str) -> bool:
        """Whether a stage (`pairs/0123abcd…`) lies here whole."""
        with self._one_line():
            return self._fs.exists(f"{self._root}/{name}/manifest.json")

    def push_stage(self, folder: Path, name: str, progress: Progress) -> None:
        """Copy a finished stage; its manifest, which says that it is whole, goes last.

        Raises FlowError, also when another machine has taken the run over.
        """
        source = folder / name
        found = (p for p in sorted(source.rglob("*")) if p.is_file() and p.name != "manifest.json")
        files = [p for p in found if not any(p.relative_to(source).match(n) for n in _NOT_COPIED)]
        total = sum(path.stat().st_size for path in files)
        done = 0
        self._still_ours()
        self.forget_stage(name)
        with self._one_line():
            self._fs.makedirs(f"{self._root}/{name}", exist_ok=True)
            for path in files:
                progress(done >> 20, total >> 20, f"MiB copied to {self.url}")
                target = f"{self._root}/{name}/{path.relative_to(source).as_posix()}"
                self._fs.makedirs(target.rpartition("/")[0], exist_ok=True)
                self._fs.put_file(str(path), target)
                done += path.stat().st_size
        self._still_ours()
        self.put(folder, [f"{name}/manifest.json"])

    def forget_stage(self, name: str) -> None:
        """Remove a stage, its manifest first."""
        with self._one_line():
            target = f"{self._root}/{name}"
            if self._fs.exists(f"{target}/manifest.json"):
                self._fs.rm_file(f"{target}/manifest.json")
            if self._fs.exists(target):
                self._fs.rm(target, recursive=True)

    def pull(self, folder: Path, name: str) -> None:
        """Download a file or a folder of a stage into its place, whole or not at all. Raises FlowError."""
        target = folder / name
        source = f"{self._root}/{name}"
        with replacing(target) as beside, self._one_line():
            if self._fs.isdir(source):
                for path in self._fs.find(source):
                    inner = beside / path[len(source) + 1 :]
                    inner.parent.mkdir(parents=True, exist_ok=True)
                    self._fs.get_file(path, str(inner))
            else:
                self._fs.get_file(source, str(beside))

    def pull_tree(self, folder: Path, name: str) -> None:
        """Download the files below `name` that the folder lacks."""
        with self._one_line():
            found = self._fs.find(f"{self._root}/{name}")
        for path in found:
            inner = path[len(self._root) + 1 :]
            if not (folder / inner).exists():
                self.pull(folder, inner)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for this process; renewed while the block runs, free at once when it ends.

        Raises RunBusy when another process, here or elsewhere, holds it.
        """
        self._holder = worker_name()
        self._take()
        stop = threading.Event()
        renewing = threading.Thread(target=self._renew, args=(stop,), name="run-lock", daemon=True)
        renewing.start()
        try:
            yield
        finally:
            stop.set()
            renewing.join()
            retire(self._holder)
            with self._one_line():
                if self._held() == self._holder:
                    self._fs.rm_file(f"{self._root}/.lock")

    def _take(self) -> None:
        holder = self._held()
        if holder is not None and not is_dead(holder):
            raise self._busy(holder)
        path = f"{self._root}/.lock"
        stale = self.read(".lock") is not None
        with self._one_line():
            if stale:
                self._fs.rm_file(path)
            self._fs.makedirs(self._root, exist_ok=True)
            with suppress(FileExistsError):  # somebody was quicker; who it is stands in the file
                self._fs.pipe_file(path, self._lease(), mode="create")
        # Where a server takes no exclusive writes, the last one won.
        holder = self._held()
        if holder != self._holder:
            raise self._busy(holder)

    def _held(self) -> str | None:
        """Who holds the run, unless the lease ran out."""
        data = self.read(".lock")
        if data is None:
            return None
        try:
            lock = json.loads(data)
            return lock["holder"] if lock["expires_at"] > time.time() else None
        except (ValueError, KeyError, TypeError):
            return None

    def _lease(self) -> bytes:
        return json.dumps({"holder": self._holder, "expires_at": time.time() + LEASE_S}).encode()

    def _renew(self, stop: threading.Event) -> None:
        while not stop.wait(LEASE_S / 5):
            try:
                if self._held() in (None, self._holder):
                    self.write(".lock", self._lease())
            except FlowError:
                continue  # a server that is away for a moment; the lease has time for four more tries

    def _still_ours(self) -> None:
        holder = self._held()
        if holder not in (None, self._holder):
            raise self._busy(holder)

    def _busy(self, holder: str | None) -> RunBusy:
        host, _, process = (holder or "another:").partition(":")
        return RunBusy(
            f"{self.url}: process {process.partition(':')[0]} on {host} works in this run directory; if that "
            f"machine is gone, wait {LEASE_S / 60:.0f} minutes or delete {self.url}/.lock"
        )

    @contextmanager
    def _one_line(self) -> Iterator[None]:
        try:
            yield
        except FlowError:
            raise
        except Exception as error:  # every file system has errors of its own kind
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise FlowError(f"runs_dir: {self.url}: {reason}") from error
