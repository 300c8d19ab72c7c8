"""Prefect's server as `charter ui` runs it: it answers its own page alone, and that page asks nobody else for anything.

Around Prefect's own application, in the same process: the name under which it is asked must be one of its own, a
request that another page makes is refused, and a content security policy keeps the page to its own origin. Prefect's
page comes with an analytics client that asks its maker for a configuration and sets a cookie although analytics are
off, and shows logos from elsewhere; both are taken out of what is served.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# The environment variable with the names under which a browser may ask, separated by commas.
HOSTS = "CHARTER_UI_HOSTS"

_POLICY = (
    "default-src 'none'",
    # Prefect's graph of a run makes functions from text, which its drawing library needs.
    "script-src 'self' 'unsafe-eval'",
    "style-src 'self' 'unsafe-inline'",
    "img-src 'self' data:",
    "font-src 'self' data:",
    "connect-src 'self'",
    "worker-src 'self' blob:",
    "manifest-src 'self'",
    "form-action 'self'",
    "base-uri 'none'",
    "frame-ancestors 'none'",
)
_HEADERS = {
    "content-security-policy": "; ".join(_POLICY),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
# FastAPI's pages about the API load their scripts from a public network.
_PAGES_FROM_ELSEWHERE = {"/docs", "/docs/oauth2-redirect", "/redoc"}
_WITH_LOGOS = ("/api/block_", "/api/collections/")
_LOGO = re.compile(rb'("logo_url"\s*:\s*)"https?://[^"]*"')
_OUR_LOGO = "/ico/favicon-32x32.png"


def create_app() -> ASGIApp:
    """The application, for `uvicorn --factory`; what it needs to know is in the environment."""
    from prefect.server.api import collections
    from prefect.server.api.server import create_app as prefect_app

    # The server itself asks a public address for its lists of workers; without one it takes those that it ships.
    collections.KNOWN_VIEWS.update(dict.fromkeys(collections.KNOWN_VIEWS, ""))
    app = prefect_app()
    for part in (app, app.api_app):
        routes = part.router.routes
        routes[:] = [r for r in routes if getattr(r, "path", None) not in _PAGES_FROM_ELSEWHERE]
    app.router.routes[:0] = [*_beside(), *_mended_pages()]
    hosts = [name for name in os.environ.get(HOSTS, "").split(",") if name]
    return TrustedHostMiddleware(OwnPageOnly(OwnLogos(app)), hosts or ["127.0.0.1"], www_redirect=False)


def _beside() -> list[Any]:
    """What is served beside Prefect's page. The audit's page is mounted here, under /charter/audit."""
    return []


class OwnPageOnly:
    """Refuses what another page asks for, and adds the headers that keep this page to its own origin."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                for name in [name for name in headers if name.startswith("access-control-")]:
                    del headers[name]
            await send(message)

        problem = foreign_origin(Headers(scope=scope))
        if problem is None:
            await self.app(scope, receive, with_headers)
        elif scope["type"] == "http":
            await JSONResponse({"detail": problem}, 403)(scope, receive, with_headers)
        else:
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": problem})


def foreign_origin(headers: Mapping[str, str]) -> str | None:
    """Why a request is refused: another page made it. Programs say no origin; a page's own requests say its own.

    The scheme is not compared: a proxy that speaks TLS in front passes the name on, and not the scheme.
    """
    origin = headers.get("origin")
    if origin is None:
        return None
    asked_by = origin.partition("://")[2].lower()
    if asked_by and asked_by == headers.get("host", "").lower():
        return None
    return f"refused: a page of {origin[:100]} asked, and this server answers its own page alone"


class OwnLogos:
    """Block types and workers with a logo of this server, in place of pictures from elsewhere."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(_WITH_LOGOS):
            return await self.app(scope, receive, send)
        # Compressed, the text could not be found in the answer.
        scope["headers"] = [(k, v) for k, v in scope["headers"] if k != b"accept-encoding"]
        ours = f'"{scope["scheme"]}://{Headers(scope=scope).get("host", "")}{_OUR_LOGO}"'.encode()
        start: Message = {}
        body = b""

        async def collected(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start":
                start = message
                return
            body += message.get("body", b"")
            if not message.get("more_body"):
                body = _LOGO.sub(lambda m: m[1] + ours, body)
                MutableHeaders(scope=start)["content-length"] = str(len(body))
                await send(start)
                await send({"type": "http.response.body", "body": body})

        await self.app(scope, receive, collected)


def _mended_pages() -> list[Route]:
    """Routes for the files of Prefect's newer page that `mended` changes, as this server has unpacked them."""
    import prefect
    from prefect.settings import get_current_settings

    if os.environ.get("PREFECT__SERVER_EPHEMERAL"):
        return []
    own = get_current_settings().server.ui.static_directory
    folder = Path(own, "v2") if own else Path(prefect.__ui_v2_static_subpath__)
    return [
        Route(f"/v2/assets/{file.name}", _file(text))
        for file in sorted(folder.glob("assets/*.js"))
        if (text := mended(before := file.read_text(encoding="utf-8"))) != before
    ]


def _file(text: str) -> Any:
    body = text.encode()

    async def answer(_: Request) -> Response:
        return Response(body, media_type="text/javascript")

    return answer


def mended(script: str) -> str:
    """A script of Prefect's page without the key of its analytics, so that it starts none, and with the way after
    *Submit* to the page of the run, which was to that of the deployment."""
    if "amplitude" in script:
        script = re.sub(r"return`[0-9a-f]{32}`", "return``", script)
    if "`View run`" in script and "`/deployments/deployment/$id/run`" not in script:
        script = re.sub(
            r"(to:`)/runs/flow-run/(\$id`,params:\{id:)(\w+)(\.id\}.{1,200}?)\1/deployments/deployment/\2\w+\.id\}",
            r"\1/runs/flow-run/\2\3\4\1/runs/flow-run/\2\3.id}",
            script,
        )
    return script
