"""The password of `charter ui`'s server: made once, kept in a file that only its owner reads.

Prefect calls it the auth string, `name:password`. It travels in the environment alone: a server asks for
PREFECT_SERVER_API_AUTH_STRING, clients say PREFECT_API_AUTH_STRING.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from flows.errors import FlowError

ASKED, SAID = "PREFECT_SERVER_API_AUTH_STRING", "PREFECT_API_AUTH_STRING"


def password_file(home: Path) -> Path:
    """Where the password is kept, beside the server's database."""
    return home / "password"


def ensure_password(home: Path) -> Path | None:
    """Ask for a password: the environment's own, or else the one in the file, made on the first call.

    Gives the file, or None where the environment's is used. Raises FlowError when the file cannot be used.
    """
    if os.environ.get(ASKED):
        # The flows here speak to this server, whatever another one is told.
        os.environ[SAID] = os.environ[ASKED]
        return None
    path = password_file(home)
    try:
        if not path.exists():
            home.mkdir(parents=True, exist_ok=True)
            # Never readable by others, not even for a moment; of two that start at once, one makes it.
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(f"{random_password()}\n")
        path.chmod(0o600)
        kept = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise FlowError(f"{path}: {error.strerror}; --no-password starts without one") from error
    if ":" not in kept.strip(":"):
        raise FlowError(f"{path}: expected name:password; delete it, and a new one is made")
    os.environ[ASKED] = os.environ[SAID] = kept
    return path


def random_password() -> str:
    """A new one, as Prefect wants it."""
    return f"charter:{secrets.token_urlsafe(18)}"


def share_password(home: Path | None = None) -> None:
    """Let clients in this environment say what the server asks for; of a server that another terminal started in
    `home`, the password in its file."""
    if asked := os.environ.get(ASKED):
        os.environ.setdefault(SAID, asked)
    elif home is not None and SAID not in os.environ and password_file(home).exists():
        os.environ[SAID] = password_file(home).read_text(encoding="utf-8").strip()
