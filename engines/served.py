"""What servers say of themselves: the model's name, its context, the server's build."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engines import wire
from engines.client import Busy, Client
from engines.errors import EngineError, RequestFailed
from engines.pool import Pool
from engines.protocol import Request

_OTHER = "openai-compatible"
UNLIMITED = 2**31
"""The context of a server that does not tell it."""


@dataclass(frozen=True, kw_only=True)
class Served:
    """The name of the model served, the most tokens that it takes, and the server's build."""

    model: str
    context: int
    build: str


def what_is_served(pool: Pool, wanted: str | None) -> Served:
    """The server with the smallest context among those that answer; `wanted` is the model's name where it is known.

    Raises EngineError when none answers, or when one serves another model.
    """
    problems = []
    servers = []
    for client in pool.clients:
        try:
            listed = client.page(f"{client.url}/models")
            servers.append(_read(client.url, listed, wanted, _build(client)))
        except RequestFailed as failure:
            problems.append(f"{client.url}: {failure.detail}")
    if not servers:
        raise EngineError(f"no server answers at {'; '.join(problems)} (start one with: charter judge serve)")
    return min(servers, key=lambda server: server.context)


def listed_logprobs(client: Client, model: str) -> int:
    """How many of the likeliest next tokens a server lists after a conversation; 0 where it lists none.

    Asked in the fields of OpenAI's own API alone. Raises EngineError where the server does not answer.
    """
    body = wire.chat_body(Request(messages=({"role": "user", "content": "Answer with one letter: A or B."},)))
    own = {name: value for name, value in body.items() if name not in wire.EXTENSIONS}
    try:
        answer = client.post("/chat/completions", {"model": model, **own})
    except (Busy, RequestFailed) as failure:
        raise EngineError(f"{client.url}: {failure}") from failure
    try:
        return len(answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"])
    except (KeyError, IndexError, TypeError):
        return 0


def _build(client: Client) -> str:
    """vLLM's version; other servers have no such page, and need none."""
    try:
        page = client.page(client.root + "/version")
    except RequestFailed:
        return _OTHER
    return f"vllm {page['version']}" if isinstance(page, dict) and "version" in page else _OTHER


def _read(url: str, listed: Any, wanted: str | None, build: str) -> Served:
    entries = listed.get("data") if isinstance(listed, dict) else None
    models = {str(m["id"]): m for m in entries or () if isinstance(m, dict) and "id" in m}
    if wanted is None:
        if not models:
            raise EngineError(
                f"{url}/models lists no model: a base URL ends in /v1, or give the model's name"
            )
        if len(models) > 1:
            raise EngineError(f"{url} serves {len(models)} models: name one of {', '.join(sorted(models))}")
        wanted = next(iter(models))
    if models and wanted not in models:
        raise EngineError(f"{url} does not serve {wanted!r}, it serves {', '.join(sorted(models))}")
    context = models.get(wanted, {}).get("max_model_len")
    if type(context) is not int or context <= 0:  # bool is an int too
        context = UNLIMITED
    return Served(model=wanted, context=context, build=build)
