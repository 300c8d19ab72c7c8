"""Prefect's server as `charter ui` serves it: for its own page alone, which asks nobody else for anything.

`uvicorn --factory flows.orchestration.ui_app:create_app`. Prefect's app does the work; around it
- a request that comes from another site's page, or under a name that is not this server's, is refused in one line;
- pages carry a content security policy that lets them load and ask from this server only;
- the page's usage statistics, which it starts before it knows whether they are wanted, are taken out of its scripts,
  and so are logos and pages that come from elsewhere; *Submit* leads to the page of the run, and logs link nowhere;
- the page is told to reach the API under the name that the browser used;
- our own audit page is at /charter/audit.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from common.files import write_atomically
from flows.orchestration.password import ASKED

AUDIT = "/charter/audit"
RUNS_DIR = "CHARTER_RUNS_DIR"
"""The folder whose runs the audit page offers."""

ORIGINS = "CHARTER_UI_ORIGINS"
"""More origins whose pages may ask (`https://charter.example`), separated by commas: for a proxy in front."""

POLICY = "; ".join(
    (
        "default-src 'self'",
        # Both of Prefect's pages set styles from scripts; plots of ours are data: URLs; the run graph has a worker.
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data:",
        "font-src 'self' data:",
        "worker-src 'self' blob:",
        # The drawing library of the newer page's run graph makes functions from text.
        "script-src 'self' 'unsafe-eval'",
        "connect-src 'self'",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
# A function of the page that returns the key of its statistics service; without a key none is ever started.
_STATISTICS_KEY = re.compile(r"(function [\w$]+\(\)\{return)`[0-9a-f]{32}`")
# What happens after *Submit*: a message with a link to the run (group 3), then the way to the deployment (group 4).
_AFTER_SUBMIT = re.compile(
    r"(to:`)(/runs/flow-run/\$id`,params:\{id:)([\w$]+\.id\}"
    r".{1,100}?`View run`.{1,30}?to:`)/deployments/deployment/\$id`,params:\{id:[\w$]+\.id\}(\}\),[\w$]+\.reset)"
)
# What both pages make a link in a log; of what a model may have said there, only our own word for the artifacts is one.
_LINK_IN_LOG = re.compile(
    r"/\((?:\(\?:https\?\|ftp\)|https\?):\\/\\/\[\^\\s/\$\.\?#\]\.\[\^\\s\)[^\]]*\]\*\)/g"
)
_ARTIFACTS_IN_LOG = (
    'new RegExp("("+location.origin.replaceAll(".","\\\\.")+"(?:/v2)?/artifacts)(?=\\\\s|$)","g")'
)
# FastAPI's pages about an API load their scripts from a public network.
_PAGES_FROM_ELSEWHERE = {"/docs", "/docs/oauth2-redirect", "/redoc"}
_WITH_LOGOS = ("/api/block_", "/api/collections/")
_LOGO = re.compile(rb'("logo_url"\s*:\s*)"https?://[^"]*"')


def create_app() -> ASGIApp:
    """The application. Settings are Prefect's, from the environment."""
    import prefect.settings
    from prefect.server.api import collections
    from prefect.server.api.server import create_app as create_prefect_app

    from flows.orchestration.audit_web import audit_app

    # The server asks a public address for its lists of workers; without one it takes those that it comes with.
    collections.KNOWN_VIEWS.update(dict.fromkeys(collections.KNOWN_VIEWS, ""))
    app: Any = create_prefect_app()
    for part in (app, app.api_app):
        routes = part.router.routes
        routes[:] = [r for r in routes if getattr(r, "path", None) not in _PAGES_FROM_ELSEWHERE]
    audit = audit_app(password=os.environ.get(ASKED), runs=Path(os.environ.get(RUNS_DIR, "runs")))
    # Before Prefect's pages, which answer every other path; a mount answers only below its own.
    app.router.routes[:0] = [Route(AUDIT, _to_audit), Mount(AUDIT, app=audit)]
    pages = prefect.settings.PREFECT_UI_STATIC_DIRECTORY.value()
    if pages:
        mend_pages(Path(pages))
    return OwnPagesOnly(OwnLogos(app))


def _to_audit(request: Request) -> RedirectResponse:
    return RedirectResponse(f"{AUDIT}/?{request.url.query}".rstrip("?"))


def mend_pages(pages: Path) -> int:
    """Mend the scripts of the copied pages; gives how many changed."""
    changed = 0
    for script in sorted(pages.glob("**/*.js")):
        text = script.read_text(encoding="utf-8")
        if (better := mended(text)) != text:
            write_atomically(script, better)
            changed += 1
    return changed


def mended(script: str) -> str:
    """A script without the key of the statistics service, with the way to the run after *Submit*, and with no link in a
    log but ours."""

    def to_the_run(found: re.Match[str]) -> str:
        to, run, between, end = found.groups()
        return f"{to}{run}{between}{run}{between.partition('}')[0]}}}{end}"

    script = _AFTER_SUBMIT.sub(to_the_run, _STATISTICS_KEY.sub(r"\1``", script))
    return _LINK_IN_LOG.sub(lambda _: _ARTIFACTS_IN_LOG, script)


class OwnPagesOnly:
    """Refuses what other sites' pages send, and adds the headers above to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.more = {
            o.strip().rstrip("/").lower() for o in os.environ.get(ORIGINS, "").split(",") if o.strip()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        problem = self.problem(headers.get("host", ""), headers.get("origin"))
        if problem is not None:
            await _refuse(problem, scope, receive, send)
        elif scope["type"] == "http" and scope["path"].rstrip("/") == "/ui-settings":
            await self._settings(headers["host"], scope, receive, send)
        else:
            await self.app(scope, receive, _with_headers(send) if scope["type"] == "http" else send)

    def problem(self, host: str, origin: str | None) -> str | None:
        """Why a request is refused, or None: a page's origin must be this server, under a name of its own."""
        known = {urlsplit(more).netloc for more in self.more}
        if not _is_ours(host) and host.lower() not in known:
            return (
                f"Host {host[:100]!r} is not this server; {ORIGINS} names others, for a proxy in front of it"
            )
        # An origin is whatever a stranger sent; no parser of URLs that could fail at it.
        asked_by = (origin or "").partition("://")[2].lower()
        if origin is None or asked_by == host.lower() or origin.lower() in self.more:
            return None
        return f"pages of {origin[:100]!r} may not ask this server; {ORIGINS} names those that may"

    async def _settings(self, host: str, scope: Scope, receive: Receive, send: Send) -> None:
        """What the page is told of this server: the API under the name that the browser used, whatever that is."""
        status, body = 500, b""

        async def keep(message: Message) -> None:
            nonlocal status, body
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body":
                body += message.get("body", b"")

        await self.app(_uncompressed(scope), receive, keep)
        answer: Any = json.loads(body) if status == 200 else {"detail": body.decode("utf-8", "replace")}
        if status == 200:
            secure = any(urlsplit(o).netloc == host.lower() and o.startswith("https:") for o in self.more)
            answer["api_url"] = f"{'https' if secure else scope['scheme']}://{host}/api"
        await JSONResponse(answer, status_code=status, headers=HEADERS)(scope, receive, send)


class OwnLogos:
    """Block types and workers with a logo of this server, in place of pictures from elsewhere."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(_WITH_LOGOS):
            await self.app(scope, receive, send)
            return
        host = dict(scope["headers"]).get(b"host", b"")
        ours = b'"%s://%s/ico/favicon-32x32.png"' % (scope["scheme"].encode(), host)
        start: Message = {}
        body = b""

        async def keep(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start":
                start = message
                return
            body += message.get("body", b"")
            if not message.get("more_body"):
                body = _LOGO.sub(lambda found: found[1] + ours, body)
                MutableHeaders(scope=start)["content-length"] = str(len(body))
                await send(start)
                await send({"type": "http.response.body", "body": body})

        await self.app(_uncompressed(scope), receive, keep)


def _uncompressed(scope: Scope) -> Scope:
    """The same request, for an answer that can be read here."""
    return {**scope, "headers": [(k, v) for k, v in scope["headers"] if k != b"accept-encoding"]}


def _is_ours(host: str) -> bool:
    """Whether a Host header can only mean this machine: an address, or one of its names. A name of somebody else's that
    was made to point here (DNS rebinding) is none."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    try:
        ipaddress.ip_address(name)
        return True
    except ValueError:
        return name in {"localhost", socket.gethostname().lower(), socket.getfqdn().lower()}


async def _refuse(problem: str, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": problem[:120]})
    else:
        await PlainTextResponse(f"refused: {problem}\n", status_code=403, headers=HEADERS)(
            scope, receive, send
        )


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return sending
