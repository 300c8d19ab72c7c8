"""The password of `charter ui`: made once, kept in a file beside the database that its owner alone can read.

It travels in the environment and in that file: never in a URL, a log or a command line.
"""

from __future__ import annotations

import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

from flows.errors import FlowError

ASKED = "PREFECT_SERVER_API_AUTH_STRING"
SAID = "PREFECT_API_AUTH_STRING"
USER = "charter"


@dataclass(frozen=True, kw_only=True)
class Login:
    """How a person gets in. `file` holds the password, unless the environment does; `made` just now, or None."""

    file: Path | None = None
    made: str | None = None

    def how(self, *, person: bool) -> str:
        """In words; a password stands in them once, when it was made, where a person reads and no log does."""
        if self.file is None:
            return f"what {ASKED} holds"
        if self.made and person:
            return f"{self.made} (kept in {self.file})"
        return f"the line in {self.file}"

    def export(self) -> str:
        """What other terminals put into their environment."""
        return f'{SAID}="$(cat {self.file})"' if self.file else f'{SAID}="${ASKED}"'


def share_password() -> None:
    """Let clients in this environment say what the server in this environment asks for."""
    if asked := os.environ.get(ASKED):
        os.environ.setdefault(SAID, asked)


def ask_for_password(folder: Path) -> Login:
    """Have the server ask for a password, and this process's own clients say it: the environment's, or one that is
    kept in `folder` and made when it is not there. Raises FlowError when its file is not as it should be."""
    file = None if os.environ.get(ASKED) else (folder / "password").resolve()
    made = None
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        made = _make(file)
        os.environ[ASKED] = made or _read(file)
    os.environ[SAID] = os.environ[ASKED]
    return Login(file=file, made=made)


def random_password() -> str:
    return f"{USER}:{secrets.token_urlsafe(15)}"


def _make(path: Path) -> str | None:
    """A new password in a new file; None where there is one."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return None
    except OSError as error:
        raise FlowError(f"{path}: cannot be written ({error.strerror})") from error
    with os.fdopen(file, "w", encoding="utf-8") as opened:
        made = random_password()
        opened.write(f"{made}\n")
    return made


def _read(path: Path) -> str:
    try:
        mode = path.stat().st_mode
        kept = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise FlowError(f"{path}: cannot be read ({error}); without it, a new password is made") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise FlowError(f"{path}: others may read it; chmod 600 it, or delete it and a new password is made")
    user, _, password = kept.partition(":")
    if not (user and password and kept.isprintable() and kept.isascii()):
        raise FlowError(f"{path}: holds no user:password; delete it and a new one is made")
    return kept
