"""What whoever starts a flow through a server may name: paths, endpoints, key variables and functions.

A person at a shell may name what they like. A flow that a server starts runs with that person's rights for somebody
else, so what its form says, and what a configuration becomes under the form's changes, is checked here first. What a
configuration file under the allowed roots says itself is allowed: whoever owns the machine wrote it there.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from pydantic import BaseModel

from flows.config.loading import load_config
from flows.errors import FlowError

ROOTS, ENDPOINTS, KEYS, FUNCTIONS = (
    f"CHARTER_ALLOWED_{name}" for name in ("ROOTS", "ENDPOINTS", "KEY_VARIABLES", "FUNCTIONS")
)
KEY_PATTERN = "CHARTER_KEY_*"
SHIPPED_FUNCTIONS = ("flows.labelling.reward:score", "flows.stages.early_stopping:microworld")
_PACKAGE = Path(__file__).resolve().parents[2]
_SHIPPED_FOLDERS = (_PACKAGE / "configs", _PACKAGE / "microworld")
# Fields whose text is no place, whatever it looks like.
_WORDS = frozenset({"pattern", "reviewer", "name", "judge_model"})
_DATABASE_OPTIONS = frozenset({"sslmode", "connect_timeout", "application_name", "channel_binding"})
_URL = re.compile(r"^[a-z][a-z0-9+.-]*:/", re.IGNORECASE)

Leaf = tuple[str, Any]
"""A field's dotted name, without places in lists, and its value."""


@dataclass(frozen=True, kw_only=True)
class Fences:
    """What is allowed. Endpoints, key variables and functions are shell patterns; endpoints match a host, host:port or
    scheme://host:port, and this machine's own are always allowed."""

    roots: tuple[Path, ...]
    endpoints: tuple[str, ...] = ()
    key_variables: tuple[str, ...] = (KEY_PATTERN,)
    functions: tuple[str, ...] = SHIPPED_FUNCTIONS

    @classmethod
    def read(cls, environment: Mapping[str, str], folder: Path) -> Fences:
        """The fences that an environment sets; each setting adds to what is allowed without it.

        `folder` is where the flows are served from: it and the shipped folders are the roots.
        """
        given = [Path(p).expanduser() for p in environment.get(ROOTS, "").split(os.pathsep) if p]
        return cls(
            roots=tuple(dict.fromkeys(p.resolve() for p in (folder, *_SHIPPED_FOLDERS, *given))),
            endpoints=_listed(environment, ENDPOINTS),
            key_variables=(KEY_PATTERN, *_listed(environment, KEYS)),
            functions=(*SHIPPED_FUNCTIONS, *_listed(environment, FUNCTIONS)),
        )

    def check(self, request: BaseModel) -> None:
        """A flow's form, and the configuration that it names with its changes.

        Raises FlowError: one line with field, value, what is allowed, and the setting that allows more.
        """
        for name, value in leaves(request):
            # In a form, `model` is the name under which a server serves one.
            if name not in ("changes", "model"):
                self.check_value(name, value)
        config = getattr(request, "config", None)
        if not isinstance(config, str):
            return
        changes = list(getattr(request, "changes", ()))
        if constitution := getattr(request, "constitution", None):
            changes.append(f"constitution={constitution}")
        owned = _of_the_file(Path(config))
        for name, value in leaves(load_config(Path(config), changes)):
            if (name, str(value)) not in owned:
                self.check_value(name, value)

    def check_value(self, name: str, value: Any) -> None:
        """One field. Raises FlowError."""
        field = name.rpartition(".")[2]
        if isinstance(value, Path):
            self._check_path(name, str(value))
        if not isinstance(value, str) or field in _WORDS:
            return
        if field == "api_key_env":
            self._check_pattern(name, value, self.key_variables, KEYS)
        elif field == "vllm_arguments":
            raise FlowError(
                f"{name}: {value!r} is not allowed for a flow that a server starts; only a file says it"
            )
        elif field == "function":
            self._check_pattern(name, value, self.functions, FUNCTIONS)
        elif _URL.match(value):
            self._check_url(name, value)
        elif field == "address" and value != "auto":
            self._check_url(name, f"ray://{value}")
        else:
            self._check_path(name, value)

    def _check_path(self, name: str, value: str) -> None:
        """Symbolic links and `..` are followed. A role of a run (`runs/a:rl`) is a path up to its colon."""
        for text in {value, value.rpartition(":")[0]} - {""}:
            try:
                place = Path(text).expanduser().resolve()
            except (OSError, RuntimeError, ValueError):
                place = None
            if place is None or not any(place.is_relative_to(root) for root in self.roots):
                raise _refused(name, value, "a path under " + " or ".join(map(str, self.roots)), ROOTS)

    def _check_url(self, name: str, value: str) -> None:
        try:
            url = urlsplit(value)
            host, port = url.hostname, url.port
        except ValueError:
            raise _refused(name, value, "a URL", ENDPOINTS) from None
        kind = url.scheme.partition("+")[0]
        if kind == "sqlite":
            if url.netloc or url.query or not url.path[1:] or url.path[1:].startswith("file:"):
                raise _refused(name, value, "sqlite:///path without options", ROOTS)
            self._check_path(name, url.path[1:])
            return
        allowed = self.endpoints
        if kind == "postgresql":
            more = {key for key, _ in parse_qsl(url.query, keep_blank_values=True)} - _DATABASE_OPTIONS
            if more:
                raise _refused(
                    name, value, f"only the options {', '.join(sorted(_DATABASE_OPTIONS))}", ENDPOINTS
                )
            if not url.netloc.rpartition("@")[2]:
                return  # this machine's own socket
        elif "@" in url.netloc or "\\" in value:
            raise _refused(name, value, "a URL without user or backslash", ENDPOINTS)
        place = url.netloc.rpartition("@")[2].lower()
        names = (host or "", f"{host}:{port}", place, f"{url.scheme}://{place}")
        if not place or "," in place or not host:
            raise _refused(name, value, _endpoints(allowed), ENDPOINTS)
        local = kind in ("http", "https", "postgresql", "ray") and _is_local(host)
        if not local and not any(fnmatchcase(n, p) for n in names for p in allowed):
            raise _refused(name, value, _endpoints(allowed), ENDPOINTS)

    def _check_pattern(self, name: str, value: str, allowed: Sequence[str], setting: str) -> None:
        if not any(fnmatchcase(value, pattern) for pattern in allowed):
            raise _refused(name, value, ", ".join(allowed), setting)


def leaves(value: Any, name: str = "") -> Iterator[Leaf]:
    """Every text and path in a model, with its field's name."""
    if isinstance(value, BaseModel):
        served = getattr(value, "kind", None) == "openai"  # of a judge or a critic
        for field in type(value).model_fields:
            if served and field == "model":
                continue  # a name, which may look like a path
            yield from leaves(getattr(value, field), f"{name}.{field}" if name else field)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from leaves(inner, f"{name}.{key}")
    elif isinstance(value, (list, tuple, set, frozenset)):
        for inner in value:
            yield from leaves(inner, name)
    elif isinstance(value, (str, Path)):
        yield name, value


def _of_the_file(path: Path) -> set[tuple[str, str]]:
    """What a configuration says without changes; nothing where it is not whole without them."""
    try:
        return {(name, str(value)) for name, value in leaves(load_config(path))}
    except FlowError:
        return set()


def _listed(environment: Mapping[str, str], setting: str) -> tuple[str, ...]:
    return tuple(environment.get(setting, "").replace(",", " ").split())


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _endpoints(allowed: Sequence[str]) -> str:
    return ", ".join(("this machine's own (127.0.0.1, localhost)", *allowed))


def _refused(name: str, value: str, allowed: str, setting: str) -> FlowError:
    shown = re.sub(r"(://[^:/@\s]*:)[^@\s]*@", r"\1***@", value)
    shown = repr(shown if len(shown) <= 120 else shown[:119] + "…")
    return FlowError(
        f"{name}: {shown} is not allowed for a flow that a server starts; allowed: {allowed}; "
        f"{setting}, where the flows are served, allows more"
    )
