"""What the servers of a judge say of themselves: the model's name, its context, the server's build."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from judges.endpoints import Endpoints, RequestFailed
from judges.errors import JudgeError

_OTHER = "openai-compatible"
_UNLIMITED = 2**31
"""The context of a server that does not tell it."""


@dataclass(frozen=True, kw_only=True)
class Served:
    """The name of the model served, the most tokens that it takes, and the server's build."""

    model: str
    context: int
    build: str


def what_is_served(endpoints: Endpoints, wanted: str | None) -> Served:
    """The server with the smallest context among those that answer; `wanted` is the model's name where it is known.

    Raises JudgeError when none answers, or when one serves another model.
    """
    problems = []
    servers = []
    for url in endpoints.urls:
        try:
            listed = endpoints.get(f"{url}/models")
            servers.append(_read(url, listed, wanted, _build(endpoints, url)))
        except RequestFailed as failure:
            problems.append(f"{url}: {failure.detail}")
    if not servers:
        raise JudgeError(f"no judge answers at {'; '.join(problems)} (start one with: charter judge serve)")
    return min(servers, key=lambda server: server.context)


def _build(endpoints: Endpoints, url: str) -> str:
    """vLLM's version; other servers have no such page, and need none."""
    try:
        page = endpoints.get(url.removesuffix("/v1") + "/version")
    except RequestFailed:
        return _OTHER
    return f"vllm {page['version']}" if isinstance(page, dict) and "version" in page else _OTHER


def _read(url: str, listed: Any, wanted: str | None, build: str) -> Served:
    entries = listed.get("data") if isinstance(listed, dict) else None
    models = {str(m["id"]): m for m in entries or () if isinstance(m, dict) and "id" in m}
    if wanted is None:
        if not models:
            raise JudgeError(f"{url}/models lists no model: a base URL ends in /v1, or give the model's name")
        if len(models) > 1:
            raise JudgeError(f"{url} serves {len(models)} models: name one of {', '.join(sorted(models))}")
        wanted = next(iter(models))
    if models and wanted not in models:
        raise JudgeError(f"{url} does not serve {wanted!r}, it serves {', '.join(sorted(models))}")
    context = models.get(wanted, {}).get("max_model_len")
    if type(context) is not int or context <= 0:  # bool is an int too
        context = _UNLIMITED
    return Served(model=wanted, context=context, build=build)
