"""The one OpenAI-compatible client: HTTP to one model server, and what its answers mean.

Nothing else in this project speaks to a model server. A request has a time limit over all, beside the one between
two bytes; proxy variables of the shell are not read, since a key goes where the settings say and nowhere else.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from engines.errors import EngineError, RequestFailed

BUSY = (429, 502, 503, 504, 529)
LONGEST_ANSWER = 2**30
"""Bytes: more than this is no answer."""
# What providers call a prompt or an answer that their filter stopped, under any HTTP status. In codes: OpenAI and
# Azure (content_filter, ResponsibleAIPolicyViolation, content_policy_violation), OpenRouter (flagged_input), Alibaba
# (data_inspection_failed), Google (PROHIBITED_CONTENT, SAFETY). In words, where there is no code: their sentences, and
# none that a prompt repeated in an error is likely to hold.
_FILTER_CODE = re.compile(
    r"content.?(filter|policy|management)|ResponsibleAI|moderation|flagged|data.?inspection"
    r"|(prohibited|sensitive|unsafe|harmful|blocked).?content|^safety|safety.?(filter|block|violation)",
    re.IGNORECASE,
)
_FILTER_WORDS = re.compile(
    r"content (management |usage )?polic|content.filter|safety (system|filter)|(violat|against).{0,40}usage polic"
    r"|requires moderation|input was flagged|inappropriate content|prohibited content",
    re.IGNORECASE,
)


class Busy(Exception):
    """The server or the way to it is not to be had now; `wait_s` is how long it asks to be left alone."""

    def __init__(self, problem: str, wait_s: float = 0.0) -> None:
        super().__init__(problem)
        self.problem = problem
        self.wait_s = wait_s


class Client:
    """HTTP to one server, by its base URL such as http://127.0.0.1:8000/v1. Thread-safe."""

    def __init__(
        self,
        url: str,
        *,
        api_key_env: str | None = None,
        api_key: str | None = None,
        timeout_s: float = 120.0,
        connections: int = 8,
    ) -> None:
        """`api_key_env` names the variable that holds the key; `api_key` is that of a server of our own.

        Raises EngineError for a malformed URL, one that carries a password, or an unset key variable.
        """
        self.url = checked_url(url)
        self._timeout_s = timeout_s
        headers = {}
        if api_key_env and api_key is None:
            api_key = os.environ.get(api_key_env)
            if not api_key:
                raise EngineError(
                    f"the environment variable {api_key_env} is not set: it should hold the API key"
                )
        if api_key:
            headers["Authorization"] = f"Bearer {api_key}"
        self._http = httpx.Client(
            headers=headers,
            timeout=httpx.Timeout(timeout_s, connect=min(10.0, timeout_s)),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=connections),
            trust_env=False,
        )

    @property
    def root(self) -> str:
        """The URL without its /v1: where a server's own pages are."""
        return self.url.removesuffix("/v1")

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def page(self, url: str, *, timeout_s: float = 10.0) -> Any:
        """JSON of one GET, or None when there is no such page. Raises RequestFailed."""
        try:
            status, _, content = self._send("GET", url, None, timeout_s)
        except Busy as busy:
            raise RequestFailed("error", busy.problem) from busy
        if status == 404:
            return None
        return _decoded(status, content)

    def post(self, path: str, body: Mapping[str, Any], *, timeout_s: float | None = None) -> dict[str, Any]:
        """The JSON object that answers `body`, within `timeout_s` or the client's own limit.

        Raises Busy where the same request may be tried again, RequestFailed where it may not, and EngineError where
        no request could ever succeed (the key, the model's name).
        """
        status, headers, content = self._send("POST", self.url + path, body, timeout_s or self._timeout_s)
        if status >= 400 and _filtered(status, content):
            detail = f"content filter ({status}): {_message(content)}"
            raise RequestFailed("refused", detail, isolates=True)
        if status in BUSY:
            wait_s = _retry_after(headers)
            asks = f" and asks for {wait_s:.0f} s" if wait_s else ""
            raise Busy(f"the server answers {status}{asks}", wait_s)
        if status in (401, 403):
            raise EngineError(f"{self.url} refuses the key ({status}): see api_key_env")
        if status == 404:
            raise EngineError(f"{self.url}: not found: {_message(content)}")
        answer = _decoded(status, content)
        if not isinstance(answer, dict):
            raise RequestFailed("error", f"the server sent {type(answer).__name__}, not an object")
        return answer

    def control(self, method: str, path: str, body: Any = None) -> Any:
        """One of a server's own routes below its root. Raises EngineError in one line, whatever is wrong."""
        try:
            status, _, content = self._send(method, self.root + path, body, self._timeout_s)
        except (Busy, RequestFailed) as error:
            raise EngineError(f"{self.root}: the vLLM server did not answer: {error}") from error
        if status >= 400:
            hint = (
                "; start it with VLLM_SERVER_DEV_MODE=1"
                if status == 404 and not path.startswith("/v1/")
                else ""
            )
            raise EngineError(f"{self.root}{path}: HTTP {status}: {_text(content)[:200]!r}{hint}")
        return json.loads(content) if content else None

    def status(self, path: str, *, timeout_s: float = 5.0) -> int | None:
        """The HTTP status of a page below the root, None when nobody answers."""
        try:
            return self._send("GET", self.root + path, None, timeout_s)[0]
        except (Busy, RequestFailed):
            return None

    def _send(self, method: str, url: str, body: Any, timeout_s: float) -> tuple[int, httpx.Headers, bytes]:
        """Status, headers and content. Raises Busy where the connection failed, RequestFailed where the time ran out
        or the content is not what its headers say."""
        started = time.monotonic()
        limits = httpx.Timeout(timeout_s, connect=min(10.0, timeout_s))
        try:
            with self._http.stream(method, url, json=body, timeout=limits) as response:
                content = bytearray()
                for part in response.iter_bytes():
                    content += part
                    if time.monotonic() - started > timeout_s:
                        raise RequestFailed("timeout", f"no whole answer in {timeout_s:g} s")
                    if len(content) > LONGEST_ANSWER:
                        raise RequestFailed("error", f"an answer of more than {LONGEST_ANSWER} bytes")
                return response.status_code, response.headers, bytes(content)
        except httpx.ReadTimeout as error:
            raise RequestFailed("timeout", f"no answer in {timeout_s:g} s") from error
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise Busy(_describe(error)) from error
        except httpx.HTTPError as error:  # a body that is not what its headers say
            raise RequestFailed("error", _describe(error)) from error


def checked_url(url: str) -> str:
    """`url` without a last slash. Raises EngineError when it is none, or carries a password."""
    parsed = httpx.URL(url)
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise EngineError(f"endpoint {url!r}: give http://host:port/v1")
    if parsed.userinfo:
        raise EngineError(
            f"endpoint on {parsed.host}: no password in a URL; name a variable with api_key_env"
        )
    return str(parsed).rstrip("/")


def _decoded(status: int, content: bytes) -> Any:
    if status != 200:
        detail = f"the server answers {status}: {_message(content)}"
        raise RequestFailed("error", detail, isolates=status in (400, 413, 422))
    try:
        return json.loads(_text(content))
    except (ValueError, RecursionError) as error:
        raise RequestFailed("error", f"the server sent no JSON: {_text(content)[:80]!r}") from error


def _filtered(status: int, content: bytes) -> bool:
    """Whether it is a content filter that answered."""
    try:
        body = json.loads(_text(content))
    except (ValueError, RecursionError):
        return False
    error = body.get("error") or body if isinstance(body, dict) else body
    if any(_FILTER_CODE.search(code) for code in _codes(error)):
        return True
    return status not in BUSY and bool(_FILTER_WORDS.search(_message(content)))


def _codes(error: Any, depth: int = 0) -> Iterator[str]:
    """The short names in an error beside its message: codes, types, reasons, and the keys of what is nested."""
    if not isinstance(error, dict) or depth > 3:
        return
    for name, value in error.items():
        yield str(name)
        if isinstance(value, dict):
            yield from _codes(value, depth + 1)
        elif name in ("code", "type", "reason", "status", "error_code") and isinstance(value, str):
            yield value[:100]


def _message(content: bytes) -> str:
    """The server's own words on an error, in one line."""
    try:
        body = json.loads(_text(content))
        message = body.get("error", body) if isinstance(body, dict) else body
        message = message.get("message", message) if isinstance(message, dict) else message
        return " ".join(str(message).split())[:300]
    except (ValueError, RecursionError):
        return " ".join(_text(content)[:2000].split())[:300]


def _text(content: bytes) -> str:
    """The body as UTF-8, whatever encoding it claims."""
    return content.decode("utf-8", "replace")


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")[:300]


def _retry_after(headers: httpx.Headers) -> float:
    """Seconds that the server asks for, at least 0; also where it gives a date (RFC 9110, section 10.2.3)."""
    value = headers.get("retry-after", "")
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (TypeError, ValueError):
            return 0.0
    return max(0.0, seconds) if seconds < float("inf") else 0.0
