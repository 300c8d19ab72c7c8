"""Telling people how far a run is: what a stage calls, and the lines that a terminal shows."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Protocol, TextIO

Progress = Callable[[int, int, str], None]
"""`progress(done, total, text)`; total 0 where it is not known."""


class Reporter(Protocol):
    """Whoever listens to a run."""

    def started(self, stage: str) -> None: ...

    def reused(self, stage: str, key: str) -> None: ...

    def progress(self, stage: str, done: int, total: int, text: str) -> None: ...

    def finished(self, stage: str, seconds: float, text: str) -> None: ...

    def warned(self, text: str) -> None: ...


class Silent:
    """Listens to nothing; the base of reporters that care about some events only."""

    def started(self, stage: str) -> None:
        pass

    def reused(self, stage: str, key: str) -> None:
        pass

    def progress(self, stage: str, done: int, total: int, text: str) -> None:
        pass

    def finished(self, stage: str, seconds: float, text: str) -> None:
        pass

    def warned(self, text: str) -> None:
        pass


class Several:
    """Passes every event to all of its reporters."""

    def __init__(self, reporters: Sequence[Reporter]) -> None:
        self._reporters = list(reporters)

    def started(self, stage: str) -> None:
        for reporter in self._reporters:
            reporter.started(stage)

    def reused(self, stage: str, key: str) -> None:
        for reporter in self._reporters:
            reporter.reused(stage, key)

    def progress(self, stage: str, done: int, total: int, text: str) -> None:
        for reporter in self._reporters:
            reporter.progress(stage, done, total, text)

    def finished(self, stage: str, seconds: float, text: str) -> None:
        for reporter in self._reporters:
            reporter.finished(stage, seconds, text)

    def warned(self, text: str) -> None:
        for reporter in self._reporters:
            reporter.warned(text)


class Terminal:
    """One line a stage; on a terminal the line of the running stage is rewritten as it moves."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._live = self._stream.isatty()
        self._width = 0
        self._last = 0.0

    def started(self, stage: str) -> None:
        self._show(f"  {label(stage)} …")

    def reused(self, stage: str, key: str) -> None:
        self._line(f"= {label(stage)}  unchanged, reused ({key[:12]})")

    def progress(self, stage: str, done: int, total: int, text: str) -> None:
        now = time.monotonic()
        if now - self._last >= 0.1:
            self._last = now
            count = f"{done:,}/{total:,}" if total else f"{done:,}"
            self._show(f"  {label(stage)}  {count}  {text}")

    def finished(self, stage: str, seconds: float, text: str) -> None:
        self._line(f"✓ {label(stage)}  {seconds:6.1f} s  {text}")

    def warned(self, text: str) -> None:
        self._line(f"! {text}")

    def _show(self, line: str) -> None:
        if self._live:
            line = line[:110]
            self._stream.write("\r" + line.ljust(self._width))
            self._stream.flush()
            self._width = len(line)

    def _line(self, line: str) -> None:
        self._show("")
        self._stream.write(("\r" if self._live else "") + line.rstrip() + "\n")
        self._stream.flush()
        self._width = 0


def label(stage: str) -> str:
    """A stage's name as people read it, in a column of fixed width."""
    return stage.replace("_", " ").ljust(20)
