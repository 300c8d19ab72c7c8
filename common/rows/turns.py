r"""Turns from lists of messages and from transcripts: one grammar for everything that holds a conversation.

A transcript begins with "Human:" or "Assistant:", white space aside, or with a text that is the system's, and a turn
begins after every blank line that is followed by one of these (hh-rlhf). White space around a turn's text is dropped.
Two turns of one speaker are one, joined by a blank line. HelpSteer2 marks turns with "<extra_id_1>User" and
"<extra_id_1>Assistant" on a line.

Messages are `{"role", "content"}`, or ShareGPT's `{"from", "value"}`. A content may be a list of text parts.
"""

from __future__ import annotations

import re
from typing import Any

from common.rows.source import fail, kind

Turns = list[dict[str, str]]
ROLES = ("system", "user", "assistant")
_SPEAKERS = {"Human": "user", "Assistant": "assistant", "User": "user"}
_FROM = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
}
_TURN = re.compile(r"(?:\r?\n[ \t]*\r?\n)(Human|Assistant):")
_STEERED = re.compile(r"\r?\n?<extra_id_1>(User|Assistant)\r?\n")
_BEGINS = re.compile(r"(Human|Assistant):")
_LINE = re.compile(r"\r?\n(?:\r?\n)?(Human|Assistant):")
_OPEN = re.compile(r"\n[ \t]*\r?\nAssistant:\s*$")


def is_transcript(text: str, *, whole: bool = False) -> bool:
    """Whether a text begins with a speaker, or has turns after a system text.

    A prompt has these when it ends with an open "Assistant:", a `whole` conversation when both speak in it.
    """
    if _BEGINS.match(text.lstrip()):
        return True
    names = _TURN.findall(text)
    return names[:1] == ["Human"] and (names[-1:] == ["Assistant"] if whole else bool(_OPEN.search(text)))


def transcript(text: str) -> Turns:
    """The turns of a transcript. What stands before the first one is the system's.

    A speaker's name that does not follow a blank line is text, unless the transcript has no blank lines before them.
    """
    text = f"\n\n{text.lstrip()}"
    turn = _TURN if "Assistant" in _TURN.findall(text) or not _LINE.search(text) else _LINE
    before, *parts = turn.split(text)
    turns = [(_SPEAKERS[name], part.strip()) for name, part in zip(parts[::2], parts[1::2], strict=True)]
    return joined([("system", before.strip())] * bool(before.strip()) + turns)


def steered(text: str) -> Turns:
    """The turns of a HelpSteer2 prompt, which begins with the user's."""
    first, *parts = _STEERED.split(text)
    later = [(_SPEAKERS[name], part) for name, part in zip(parts[::2], parts[1::2], strict=True)]
    return joined([("user", first), *later])


def joined(turns: list[tuple[str, str]]) -> Turns:
    """Messages, those of one role that follow each other made one."""
    found: Turns = []
    for role, content in turns:
        if found and found[-1]["role"] == role:
            found[-1]["content"] += f"\n\n{content}"
        else:
            found.append({"role": role, "content": content})
    return found


def prompt_turns(value: Any, field: str, place: str) -> Turns:
    """A prompt from messages, a transcript or plain text, which is the user's one turn.

    An open "Assistant:" at the end of a transcript, where the answer would begin, is no turn.
    """
    if not isinstance(value, str):
        return messages(value, field, place)
    if not is_transcript(value):
        return [{"role": "user", "content": value}]
    turns = transcript(value)
    return turns[:-1] if turns[-1] == {"role": "assistant", "content": ""} else turns


def messages(value: Any, field: str, place: str) -> Turns:
    """A list of messages, or one message. Raises DataError."""
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list) or not value:
        also = (
            "" if field in ("messages", "conversations", "conversation_a", "conversation_b") else "text or "
        )
        fail(place, field, f"expected {also}a list of messages, got {kind(value)}")
    return [_message(message, f"{field}[{n}]", place) for n, message in enumerate(value)]


def _message(message: Any, field: str, place: str) -> dict[str, str]:
    if not isinstance(message, dict):
        fail(place, field, f"expected a message with role and content, got {kind(message)}")
    old = "from" in message and "role" not in message
    role_key, content_key = ("from", "value") if old else ("role", "content")
    for key in (role_key, content_key):
        if key not in message:
            fail(place, f"{field}.{key}", "is missing; a message has role and content")
    role = message[role_key]
    allowed = _FROM if old else {name: name for name in ROLES}
    if not isinstance(role, str) or role not in allowed:
        fail(place, f"{field}.{role_key}", f"{_short(role)} is not one of {', '.join(allowed)}")
    if message.get("tool_calls"):
        fail(place, f"{field}.tool_calls", "calls of tools are not read")
    return {"role": allowed[role], "content": _content(message[content_key], f"{field}.{content_key}", place)}


def _content(value: Any, field: str, place: str) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        fail(place, field, f"expected text, got {kind(value)}")
    texts = []
    for n, part in enumerate(value):
        text = part.get("text") if isinstance(part, dict) and part.get("type", "text") == "text" else part
        if not isinstance(text, str):
            what = part.get("type") if isinstance(part, dict) else kind(part)
            fail(place, f"{field}[{n}]", f"expected a part of type text, got {_short(what)}")
        texts.append(text)
    return "".join(texts)


def text(value: Any, field: str, place: str) -> str:
    """A text. Raises DataError."""
    if not isinstance(value, str):
        fail(place, field, f"expected text, got {kind(value)}")
    return value


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 40 else f"{shown[:39]}…"
