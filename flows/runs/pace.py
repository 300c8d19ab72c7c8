"""How fast work goes, in words: tokens a second and the time that is left."""

from __future__ import annotations

import time
from collections.abc import Callable

_SETTLED_S = 2.0
"""Before this, a rate is a guess."""


class Pace:
    """Called with what is done so far, says how fast it goes. What an earlier attempt had done counts for no speed."""

    def __init__(self, total: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._total, self._clock = total, clock
        self._began: float | None = None
        self._first, self._before = 0, 0

    def add(self, tokens: int) -> None:
        """Tokens of work that is finished, which later calls do not count again."""
        self._before += tokens

    def __call__(self, done: int, tokens: int = 0) -> str:
        """ "52 tokens/s, 3 min left"; what is not known yet is left out. `tokens` are those since the last `add`."""
        now = self._clock()
        if self._began is None:
            self._began, self._first = now, done
        seconds = now - self._began
        if seconds < _SETTLED_S:
            return ""
        said = []
        if written := self._before + tokens:
            said.append(f"{written / seconds:,.0f} tokens/s")
        if self._first < done < self._total:
            said.append(f"{duration(seconds * (self._total - done) / (done - self._first))} left")
        return ", ".join(said)


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, as people say them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
