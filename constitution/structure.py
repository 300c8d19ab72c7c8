"""What a constitution must satisfy beyond the schema: unique ids, real conversations, something to draw.

Works on raw data, so that a file with schema errors still gets all its messages in one go.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from constitution.model import Problem
from constitution.source import FieldPath, Source

HALVES = ("critique", "comparison")
NOTHING_TO_DRAW = "{}: no principle can be drawn; enable one, with a weight above 0"


def entries(source: Source, half: str, kind: str) -> Iterator[tuple[FieldPath, dict[str, Any]]]:
    """(path, entry) of the principles or exemplars of one half, as far as they have the right shape."""
    section = source.data.get(half) if isinstance(source.data, dict) else None
    items = section.get(kind) if isinstance(section, dict) else None
    for index, item in enumerate(items if isinstance(items, list) else []):
        if isinstance(item, dict):
            yield (half, kind, index), item


def structure_problems(source: Source) -> list[Problem]:
    """Errors that make a constitution unusable although each field is well formed."""
    problems: list[Problem] = []
    for half in HALVES:
        problems += _repeated_ids(source, half)
        problems += _nothing_to_draw(source, half)
        for path, exemplar in entries(source, half, "exemplars"):
            problems += _broken_conversation(source, path, exemplar.get("conversation"))
    return problems


def _repeated_ids(source: Source, half: str) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for path, principle in entries(source, half, "principles"):
        name = principle.get("id")
        if not isinstance(name, str):
            continue
        line = source.line((*path, "id"))
        if name in first:
            yield Problem(source.file, line, f"{half} principle '{name}' exists already (line {first[name]})")
        first.setdefault(name, line)


def _nothing_to_draw(source: Source, half: str) -> Iterator[Problem]:
    principles = [principle for _, principle in entries(source, half, "principles")]
    if not principles or "extends" in source.data:
        return
    if all(p.get("enabled") is False or p.get("weight") == 0 for p in principles):
        yield source.problem((half, "principles"), NOTHING_TO_DRAW.format(half))


def _broken_conversation(source: Source, path: FieldPath, conversation: Any) -> Iterator[Problem]:
    if not isinstance(conversation, list):
        return
    roles = [turn.get("role") if isinstance(turn, dict) else None for turn in conversation]
    if not roles or any(role not in ("system", "user", "assistant") for role in roles):
        return
    turns = roles[1:] if roles[0] == "system" else roles
    offset = len(roles) - len(turns)
    for index, role in enumerate(turns):
        expected = "user" if index % 2 == 0 else "assistant"
        if role != expected:
            where = (*path, "conversation", index + offset)
            message = (
                f"turn {index + offset + 1} is the {role}'s; user and assistant alternate, system comes first"
            )
            yield source.problem(where, message)
            return
    if not turns or turns[-1] != "user":
        yield source.problem((*path, "conversation"), "the conversation must end with the user's turn")
