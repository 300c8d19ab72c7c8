"""Prompts files as users have them: our JSONL, plain strings, or hh-rlhf transcripts.

A prompt is a conversation that ends in a user turn. Of a transcript of whole dialogues the last answer is cut
off, so that its final human turn is what is asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from flows.errors import FlowError
from flows.runs.digests import digest_json
from training.data.datasets import read_rows

Message = dict[str, str]

_TURN = re.compile(r"\n\n(Human|Assistant):[ ]?")
_ROLES = {"Human": "user", "Assistant": "assistant"}


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A conversation that waits for an answer. `meta` is free and travels along."""

    id: str
    prompt: list[Message]
    meta: dict[str, Any] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """The prompt as a line of a prompts file."""
        return asdict(self)


def read_prompts(path: Path, *, limit: int | None = None) -> list[Prompt]:
    """The first `limit` distinct prompts of a .jsonl, .jsonl.gz or .parquet file.

    A line holds `prompt` (a list of messages, or a string), or `messages`, or an hh-rlhf transcript under
    `chosen`. Lines that ask the same thing count once. Reference answers, a string under `reference` or a list
    under `references`, become `meta["references"]`.

    Raises FlowError naming file, line and field for a line that holds no prompt, for an id that returns with
    another prompt, and for a file without any.
    """
    prompts: dict[str, Prompt] = {}
    seen: set[str] = set()
    for place, row in read_rows(path):
        if limit is not None and len(prompts) >= limit:
            break
        messages = _messages(place, row)
        try:
            content = digest_json(messages)
        except UnicodeError as error:
            raise FlowError(f"{place}: holds a lone surrogate, which is not text") from error
        if content in seen:
            continue
        seen.add(content)
        identifier = row.get("id", content[:16])
        if not isinstance(identifier, str) or not identifier:
            raise FlowError(f"{place}: id: {identifier!r} is not allowed: a non-empty string")
        if identifier in prompts:
            raise FlowError(f"{place}: id: {identifier!r} was already used for another prompt")
        meta = row.get("meta", {})
        if not isinstance(meta, dict):
            raise FlowError(f"{place}: meta: expected an object, got {type(meta).__name__}")
        if references := _references(place, row):
            meta = {**meta, "references": references}
        prompts[identifier] = Prompt(id=identifier, prompt=messages, meta=meta)
    if not prompts:
        raise FlowError(f"{path}: holds no prompts")
    return list(prompts.values())


def parse_transcript(text: str) -> list[Message]:
    r"""The turns of a "\n\nHuman: …\n\nAssistant: …" transcript, up to its last human turn.

    Raises ValueError when no human turn is found.
    """
    found = list(_TURN.finditer(text))
    turns: list[Message] = []
    ends = [match.start() for match in found[1:]] + [len(text)]
    for match, end in zip(found, ends[: len(found)], strict=True):
        content = text[match.end() : end].strip()
        role = _ROLES[match.group(1)]
        if turns and turns[-1]["role"] == role:
            turns[-1] = {"role": role, "content": f"{turns[-1]['content']}\n\n{content}"}
        else:
            turns.append({"role": role, "content": content})
    while turns and turns[-1]["role"] != "user":
        turns.pop()
    if turns and turns[0]["role"] == "assistant":
        turns.pop(0)
    if not turns:
        raise ValueError('no "Human:" turn')
    return turns


def _messages(place: str, row: dict[str, Any]) -> list[Message]:
    for name in ("prompt", "messages", "chosen"):
        if name in row:
            break
    else:
        names = ", ".join(sorted(row)) or "nothing"
        raise FlowError(f"{place}: expected a field prompt, messages or chosen, got {names}")
    value = row[name]
    if isinstance(value, str):
        if name == "chosen" or _TURN.match(value):
            try:
                turns = parse_transcript(value)
            except ValueError as error:
                raise FlowError(f"{place}: {name}: {error} in the transcript") from error
        else:
            turns = [{"role": "user", "content": value}]
    else:
        turns = list(_checked_turns(place, name, value))
        while turns and turns[-1]["role"] == "assistant":
            turns.pop()
    if not turns or turns[-1]["role"] != "user":
        raise FlowError(f"{place}: {name}: must hold a user turn to answer")
    if not turns[-1]["content"].strip():
        raise FlowError(f"{place}: {name}: the last user turn is empty")
    return turns


def _references(place: str, row: dict[str, Any]) -> list[str]:
    found = row.get("references", row.get("reference")) or []
    found = [found] if isinstance(found, str) else found
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise FlowError(f"{place}: references: expected a list of strings, or one string under reference")
    return found


def _checked_turns(place: str, name: str, value: Any) -> Iterator[Message]:
    if not isinstance(value, list):
        raise FlowError(f"{place}: {name}: expected a list of messages or a string")
    for index, turn in enumerate(value):
        where = f"{place}: {name}[{index}]"
        if not isinstance(turn, dict) or not isinstance(turn.get("content"), str):
            raise FlowError(f"{where}: expected an object with role and content")
        if turn.get("role") not in ("system", "user", "assistant"):
            raise FlowError(f"{where}.role: {turn.get('role')!r} is not allowed: system, user or assistant")
        yield {"role": turn["role"], "content": turn["content"]}
