"""What a stage costs in memory: peak resident sizes of this process and of its children."""

from __future__ import annotations

import resource
import sys
import threading
from types import TracebackType

import psutil

from flows.runs.manifest import PeakMemory

# Linux counts ru_maxrss in KiB, macOS in bytes.
_UNIT = 1 if sys.platform == "darwin" else 1024


class MemoryWatch:
    """Watches resident memory while its block runs.

    `total_bytes` is sampled over this process and all its descendants, so pages they share count more than
    once: it errs upwards. This process's peak comes from the kernel and is exact, and so is that of a child that
    grew beyond it; smaller children are sampled.
    """

    def __init__(self, *, interval: float = 0.5) -> None:
        self._interval = interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory-watch", daemon=True)
        self._total = 0
        self._children: dict[int, int] = {}

    def __enter__(self) -> MemoryWatch:
        self._sample()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sample()
        self._stop.set()
        self._thread.join()

    def note_child(self, ru_maxrss: int) -> None:
        """Take the kernel's peak of a child that ended (the `ru_maxrss` that `os.wait4` returned).

        It begins with the parent's, so one that is no larger says nothing of the child.
        """
        if ru_maxrss * _UNIT > _own_peak():
            self._children[-1] = max(self._children.get(-1, 0), ru_maxrss * _UNIT)

    def peak(self) -> PeakMemory:
        """The largest sizes seen so far."""
        own = _own_peak()
        child = max(self._children.values(), default=0)
        return PeakMemory(process_bytes=own, child_bytes=child, total_bytes=max(self._total, own, child))

    def _watch(self) -> None:
        while not self._stop.wait(self._interval):
            self._sample()

    def _sample(self) -> None:
        me = psutil.Process()
        total = me.memory_info().rss
        for child in me.children(recursive=True):
            try:
                size = child.memory_info().rss
            except psutil.Error:
                continue  # it ended between the listing and the look
            self._children[child.pid] = max(self._children.get(child.pid, 0), size)
            total += size
        self._total = max(self._total, total)


def _own_peak() -> int:
    """Bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT
