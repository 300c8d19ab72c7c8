"""Who may use a page of ours: a login with the server's password, a session cookie, and a token in every form.

Prefect's pages keep the password in the browser's storage and send it as a header. A page of ours is opened by a
link, which carries no header, so it asks for the same password itself.
"""

from __future__ import annotations

import hmac
import secrets

from fastapi import HTTPException, Request, Response


class LoginNeeded(Exception):
    """Nobody has logged in here, or the server has been started again since."""


class Sessions:
    """Sessions that this process signs; another process, or the next one, knows nothing of them.

    With no password everybody has a session: its cookie is what the token of a form belongs to.
    """

    def __init__(self, password: str | None) -> None:
        self._password = password
        self._key = secrets.token_bytes(32)

    def enter(self, request: Request, response: Response, password: str | None = None) -> str:
        """The session of a request, or a new one. Raises LoginNeeded without a session and the right password."""
        session = request.cookies.get(_cookie(request), "")
        if self._is_ours(session):
            return session
        if self._password is not None and not _same(password or "", self._password):
            raise LoginNeeded
        session = secrets.token_hex(16)
        session = f"{session}.{self._sign('session', session)}"
        response.set_cookie(
            _cookie(request),
            session,
            path=request.scope.get("root_path") or "/",
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
        return session

    def token(self, session: str) -> str:
        """What a form of this session carries."""
        return self._sign("form", session)

    def check(self, session: str, token: str) -> None:
        """Raises HTTPException (403) unless the token is this session's."""
        if not _same(token, self.token(session)):
            raise HTTPException(403, "this form is not of your session: load the page again")

    def _is_ours(self, session: str) -> bool:
        name, _, signature = session.partition(".")
        return _same(signature, self._sign("session", name))

    def _sign(self, purpose: str, text: str) -> str:
        return hmac.digest(self._key, f"{purpose}:{text}".encode(), "sha256").hex()


def check_origin(request: Request) -> None:
    """Raises HTTPException (403) unless the request was sent by a page of this very server."""
    origin = request.headers.get("origin", "")
    if origin.partition("://")[2] != request.headers.get("host"):
        raise HTTPException(403, f"origin: {origin[:100] or 'none'} is not this page")


def _cookie(request: Request) -> str:
    # Browsers send cookies to every port of a host; two servers on one machine must not log each other out.
    return f"charter-audit-{request.url.port or 0}"


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode())
