"""Prefect's server as `charter ui` serves it: for its own page alone, which asks nobody else for anything.

`uvicorn --factory flows.orchestration.ui_app:create_app`. Prefect's app does the work; around it
- a request that comes from another site's page, or under a name that is not this server's, is refused in one line;
- pages carry a content security policy that lets them load and ask from this server only;
- the page's usage statistics, which it starts before it knows whether they are wanted, are taken out of its scripts;
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
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

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
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "worker-src 'self' blob:",
        "script-src 'self'",
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


def create_app() -> ASGIApp:
    """The application. Settings are Prefect's, from the environment."""
    import prefect.settings
    from prefect.server.api.server import create_app as create_prefect_app

    from flows.orchestration.audit_web import audit_app

    app = create_prefect_app()
    # Before Prefect's pages, which answer every other path.
    app.router.routes.insert(
        0,
        Mount(
            AUDIT, app=audit_app(password=os.environ.get(ASKED), runs=Path(os.environ.get(RUNS_DIR, "runs")))
        ),
    )
    pages = prefect.settings.PREFECT_UI_STATIC_DIRECTORY.value()
    if pages:
        take_statistics_out(Path(pages))
    return OwnPagesOnly(app)


def take_statistics_out(pages: Path) -> int:
    """Remove the key of the statistics service from the copied pages; gives how many files changed."""
    changed = 0
    for script in sorted(pages.glob("**/*.js")):
        text = script.read_text(encoding="utf-8")
        cleaned = _STATISTICS_KEY.sub(r"\1``", text)
        if cleaned != text:
            script.write_text(cleaned, encoding="utf-8")
            changed += 1
    return changed


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
        if origin is None or urlsplit(origin).netloc.lower() == host.lower() or origin.lower() in self.more:
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

        plain = [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]
        await self.app({**scope, "headers": plain}, receive, keep)
        answer: Any = json.loads(body) if status == 200 else {"detail": body.decode("utf-8", "replace")}
        if status == 200:
            secure = any(urlsplit(o).netloc == host.lower() and o.startswith("https:") for o in self.more)
            answer["api_url"] = f"{'https' if secure else scope['scheme']}://{host}/api"
        await JSONResponse(answer, status_code=status, headers=HEADERS)(scope, receive, send)


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
