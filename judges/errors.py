"""The errors of this package: each is also a ValueError, and its text is one line fit for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from engines.errors import EngineError


class JudgeError(ValueError):
    """A user's mistake or a missing part: a bad setting, an unknown template, a server that is not there."""


class JudgeUnavailable(JudgeError):
    """The judge does not answer any more, after all patience with its transport; later it may."""


class LedgerError(JudgeError):
    """The ledger cannot be opened, read or written: wrong URL, locked, disk full, newer schema."""


@contextmanager
def one_line(hint: str = "") -> Iterator[None]:
    """An engine's error as a judge's; `hint` says what to do when no server answers."""
    try:
        yield
    except EngineError as error:
        more = hint if str(error).startswith("no server answers") else ""
        raise JudgeError(f"{error}{more}") from error
