"""The errors of this package: each is also a ValueError, and its text is one line fit for a terminal."""

from __future__ import annotations


class JudgeError(ValueError):
    """A user's mistake or a missing part: a bad setting, an unknown template, a server that is not there."""


class JudgeUnavailable(JudgeError):
    """The judge does not answer any more, after all patience with its transport; later it may."""


class LedgerError(JudgeError):
    """The ledger cannot be opened, read or written: wrong URL, locked, disk full, newer schema."""
