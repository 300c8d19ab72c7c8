"""The errors of this package: the text is one line fit for a terminal."""

from __future__ import annotations

from typing import Literal

Failure = Literal["no_answer", "refused", "truncated", "timeout", "error"]
"""Why a prompt has no answer: `error` and `timeout` are the transport's, the others the model's or the server's."""


class EngineError(ValueError):
    """A user's mistake or a missing part: a bad setting, a model that does not load, a server that is not there."""


class RequestFailed(Exception):
    """A request without a usable answer. `isolates` says that one prompt of several may be at fault, not the server."""

    def __init__(self, status: Failure, detail: str, *, isolates: bool = False) -> None:
        super().__init__(detail)
        self.status: Failure = status
        self.detail = detail[:500]
        self.isolates = isolates
