"""Several servers of one model: who is free, who is down, what may be tried again.

Only the transport is retried: no connection, a connection that broke, "busy" (429, 502, 503, 504; a Retry-After is
obeyed). A request that was received and not answered well (500, no JSON, no answer in time) is not repeated behind
the caller's back, unless the caller says that it may be.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engines.client import Busy, Client
from engines.errors import EngineError, RequestFailed

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 15.0


@dataclass(kw_only=True)
class _Endpoint:
    client: Client
    in_flight: int = 0
    gone: bool = False
    down_until: float = 0.0
    failures: int = 0


class Pool:
    """Thread-safe requests to whichever of the servers is least busy."""

    def __init__(
        self,
        urls: Sequence[str],
        *,
        api_key_env: str | None = None,
        api_key: str | None = None,
        concurrency: int = 8,
        timeout_s: float = 120.0,
        retry_s: float = 180.0,
    ) -> None:
        """`concurrency` requests at most per endpoint; `retry_s` bounds all waiting of one request together.

        Raises EngineError for a malformed URL, one that carries a password, or an unset key variable.
        """
        if not urls:
            raise EngineError("no endpoint: give at least one URL such as http://127.0.0.1:8000/v1")
        self._endpoints = [
            _Endpoint(
                client=Client(
                    url,
                    api_key_env=api_key_env,
                    api_key=api_key,
                    timeout_s=timeout_s,
                    connections=concurrency,
                )
            )
            for url in urls
        ]
        self._concurrency, self._retry_s = concurrency, retry_s
        self._free = threading.Condition()
        self._end = ""

    @property
    def total_concurrency(self) -> int:
        """Requests that may be in flight together."""
        return self._concurrency * len(self._endpoints)

    @property
    def clients(self) -> list[Client]:
        """One client per server."""
        return [endpoint.client for endpoint in self._endpoints]

    def close(self) -> None:
        """Closes the connections."""
        for client in self.clients:
            client.close()

    def leave(self, url: str, problem: str) -> None:
        """The server at `url` will not come back. Once none is left, every request raises EngineError: `problem`."""
        with self._free:
            for endpoint in self._endpoints:
                endpoint.gone = endpoint.gone or endpoint.client.url == url.rstrip("/")
            if all(endpoint.gone for endpoint in self._endpoints):
                self._end = problem
            self._free.notify_all()

    def post(
        self, path: str, body: Mapping[str, Any], *, timeout_s: float | None = None, again: int = 0
    ) -> dict[str, Any]:
        """The JSON object that some server answers to `body`, within `timeout_s` or the clients' own limit.

        A request that was received and not answered well is put to a server `again` so often, for requests that may be
        answered twice. Raises RequestFailed, or EngineError for 401-404 and where every server has left.
        """
        deadline = time.monotonic() + self._retry_s
        while True:
            endpoint = self._acquire()
            asked = time.monotonic()
            try:
                answer = endpoint.client.post(path, body, timeout_s=timeout_s)
            except Busy as busy:
                problem, wait = busy.problem, self._down(endpoint, busy.wait_s)
            except RequestFailed as failure:
                if not again or failure.isolates or failure.status not in ("timeout", "error"):
                    self._up(endpoint)
                    raise
                again -= 1
                problem, wait = failure.detail, self._down(endpoint, 0.0)
            except EngineError:
                self._up(endpoint)
                raise
            else:
                self._up(endpoint)
                return answer
            finally:
                self._release(endpoint)
            deadline += time.monotonic() - asked  # a long answer that breaks off is no waiting
            if time.monotonic() + (0 if self._another_is_up(endpoint) else wait) > deadline:
                raise RequestFailed(
                    "error", f"{endpoint.client.url}: {problem}; gave up after {self._retry_s:g} s"
                )

    def _acquire(self) -> _Endpoint:
        """The least busy endpoint that is up; waits for one, or for the end of the shortest pause."""
        with self._free:
            while True:
                if self._end:
                    raise EngineError(self._end)
                now = time.monotonic()
                open_ones = [e for e in self._endpoints if not e.gone and e.in_flight < self._concurrency]
                up = [e for e in open_ones if e.down_until <= now]
                if up:
                    endpoint = min(up, key=lambda e: e.in_flight)
                    endpoint.in_flight += 1
                    return endpoint
                pause = min((e.down_until - now for e in open_ones), default=None)
                self._free.wait(pause)

    def _release(self, endpoint: _Endpoint) -> None:
        with self._free:
            endpoint.in_flight -= 1
            self._free.notify_all()

    def _down(self, endpoint: _Endpoint, asked_s: float) -> float:
        """Rests an endpoint for as long as it asks, or exponentially with full jitter, so that clients do not come
        back in step."""
        with self._free:
            endpoint.failures += 1
            ceiling = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(endpoint.failures - 1, 10))
            wait = max(asked_s, random.uniform(ceiling / 2, ceiling))
            endpoint.down_until = max(endpoint.down_until, time.monotonic() + wait)
            return wait

    def _up(self, endpoint: _Endpoint) -> None:
        with self._free:
            endpoint.failures = 0

    def _another_is_up(self, endpoint: _Endpoint) -> bool:
        now = time.monotonic()
        return any(e is not endpoint and not e.gone and e.down_until <= now for e in self._endpoints)
