"""HTTP to one or several OpenAI-compatible servers: who is free, who is down, what may be tried again.

Only the transport is retried: no connection, a connection that broke, "busy" (429, 502, 503, 504). A request that
was received and not answered well (500, no JSON, no answer in time) is not repeated behind the caller's back.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from judges.errors import JudgeError
from judges.records import Status

BUSY = (429, 502, 503, 504)
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 15.0


class RequestFailed(Exception):
    """A request without a usable answer. `bad_request` marks a 400: the content is at fault, not the server."""

    def __init__(self, status: Status, detail: str, *, bad_request: bool = False) -> None:
        super().__init__(detail)
        self.status: Status = status
        self.detail = detail[:500]
        self.bad_request = bad_request


@dataclass(kw_only=True)
class _Endpoint:
    url: str
    in_flight: int = 0
    down_until: float = 0.0
    failures: int = 0


class Endpoints:
    """A thread-safe client over several base URLs (`http://host:port/v1`) that serve the same model."""

    def __init__(
        self,
        urls: Sequence[str],
        *,
        api_key_env: str | None,
        concurrency: int,
        timeout_s: float,
        retry_s: float,
    ) -> None:
        """`concurrency` requests at most per endpoint; `retry_s` bounds all waiting of one request together.

        Raises JudgeError for a malformed URL, one that carries a password, or an unset key variable.
        """
        if not urls:
            raise JudgeError("no endpoint: give at least one URL such as http://127.0.0.1:8000/v1")
        self._endpoints = [_Endpoint(url=_checked_url(url)) for url in urls]
        self._concurrency, self._retry_s, self._timeout_s = concurrency, retry_s, timeout_s
        headers = {}
        if api_key_env:
            key = os.environ.get(api_key_env)
            if not key:
                raise JudgeError(
                    f"the environment variable {api_key_env} is not set: it should hold the API key"
                )
            headers["Authorization"] = f"Bearer {key}"
        self._client = httpx.Client(
            headers=headers,
            timeout=httpx.Timeout(timeout_s, connect=min(10.0, timeout_s)),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=self.total_concurrency),
            # A judge is where the settings say it is, never where a proxy variable of the shell points.
            trust_env=False,
        )
        self._free = threading.Condition()

    @property
    def total_concurrency(self) -> int:
        """Requests that may be in flight together."""
        return self._concurrency * len(self._endpoints)

    @property
    def urls(self) -> list[str]:
        """The base URLs."""
        return [endpoint.url for endpoint in self._endpoints]

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def get(self, url: str) -> Any:
        """JSON of one GET without retries, or None when there is no such page. Raises RequestFailed."""
        try:
            response = self._client.get(url, timeout=10.0)
        except httpx.HTTPError as error:
            raise RequestFailed("error", _describe(error)) from error
        if response.status_code == 404:
            return None
        return _decoded(response)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The JSON object that some endpoint answers to `body`. Raises RequestFailed, or JudgeError for 401-404."""
        deadline = time.monotonic() + self._retry_s
        while True:
            endpoint = self._acquire()
            try:
                response = self._client.post(endpoint.url + path, json=body)
            except httpx.ReadTimeout as error:
                raise RequestFailed("timeout", f"no answer in {self._timeout_s:g} s") from error
            except (httpx.TransportError, httpx.InvalidURL) as error:
                problem, wait = _describe(error), self._down(endpoint)
            except httpx.HTTPError as error:  # a body that is not what its headers say
                raise RequestFailed("error", _describe(error)) from error
            else:
                if response.status_code not in BUSY:
                    self._up(endpoint)
                    return self._object(endpoint, response)
                problem = f"the server answers {response.status_code}"
                wait = max(self._down(endpoint), _retry_after(response))
            finally:
                self._release(endpoint)
            if time.monotonic() + (0 if self._another_is_up(endpoint) else wait) > deadline:
                raise RequestFailed("error", f"{endpoint.url}: {problem}; gave up after {self._retry_s:g} s")

    def _object(self, endpoint: _Endpoint, response: httpx.Response) -> dict[str, Any]:
        if response.status_code in (401, 403):
            raise JudgeError(f"{endpoint.url} refuses the key ({response.status_code}): see api_key_env")
        if response.status_code == 404:
            raise JudgeError(f"{endpoint.url}: not found: {_message(response)}")
        answer = _decoded(response)
        if not isinstance(answer, dict):
            raise RequestFailed("error", f"the server sent {type(answer).__name__}, not an object")
        return answer

    def _acquire(self) -> _Endpoint:
        """The least busy endpoint that is up; waits for one, or for the end of the shortest pause."""
        with self._free:
            while True:
                now = time.monotonic()
                open_ones = [e for e in self._endpoints if e.in_flight < self._concurrency]
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

    def _down(self, endpoint: _Endpoint) -> float:
        """Rests an endpoint: exponential with full jitter, so that clients do not come back in step."""
        with self._free:
            endpoint.failures += 1
            ceiling = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(endpoint.failures - 1, 10))
            wait = random.uniform(ceiling / 2, ceiling)
            endpoint.down_until = max(endpoint.down_until, time.monotonic() + wait)
            return wait

    def _up(self, endpoint: _Endpoint) -> None:
        with self._free:
            endpoint.failures = 0

    def _another_is_up(self, endpoint: _Endpoint) -> bool:
        now = time.monotonic()
        return any(e is not endpoint and e.down_until <= now for e in self._endpoints)


def _checked_url(url: str) -> str:
    parsed = httpx.URL(url)
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise JudgeError(f"endpoint {url!r}: give http://host:port/v1")
    if parsed.userinfo:
        raise JudgeError(f"endpoint on {parsed.host}: no password in a URL; name a variable with api_key_env")
    return str(parsed).rstrip("/")


def _decoded(response: httpx.Response) -> Any:
    if response.status_code != 200:
        detail = f"the server answers {response.status_code}: {_message(response)}"
        raise RequestFailed("error", detail, bad_request=response.status_code in (400, 413, 422))
    try:
        return response.json()
    except (ValueError, RecursionError) as error:
        raise RequestFailed("error", f"the server sent no JSON: {_text(response)[:80]!r}") from error


def _message(response: httpx.Response) -> str:
    """The server's own words on an error, in one line."""
    try:
        body = response.json()
        message = body.get("error", body) if isinstance(body, dict) else body
        message = message.get("message", message) if isinstance(message, dict) else message
        return " ".join(str(message).split())[:300]
    except (ValueError, RecursionError):
        return " ".join(_text(response)[:2000].split())[:300]


def _text(response: httpx.Response) -> str:
    """The body as UTF-8, whatever encoding it claims."""
    return response.content.decode("utf-8", "replace")


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")[:300]


def _retry_after(response: httpx.Response) -> float:
    try:
        return min(LONGEST_WAIT_S, float(response.headers.get("retry-after", 0)))
    except ValueError:
        return 0.0
