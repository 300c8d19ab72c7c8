"""Reading constitutions of other projects; `constitution.exporting` shows the formats."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from constitution.digest import one_line
from constitution.exporting import WRAPPING
from constitution.loading import loads
from constitution.model import ConstitutionError, Problem
from constitution.source import MAX_BYTES

_COMMON_WORDS = """
    a all an and any are as assistant be choose compare consider for human identify in is it its last of or
    please response responses s specific that the these this to ways which whether with
"""


class _Bad(Exception):
    """What is wrong with an imported file; the caller adds the file's name."""


def import_text(text: str, *, name: str, dimension: str = "harmless", file: str = "<text>") -> str:
    """The YAML of a working file called `name` with the principles of `text`.

    The format is recognised. Every principle gets `dimension`, weight 1 and an id from its words. Raises
    ConstitutionError for a file of none of the formats, and for principles that the schema does not allow.
    """
    try:
        data = _read(text, file)
        document: dict[str, Any] = {"name": name, "metadata": {"source": Path(file).name}}
        document |= _convert(data, dimension)
    except _Bad as error:
        raise ConstitutionError(Problem(file, None, str(error))) from None
    body = yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=108)
    try:
        loads(body, file=file)
    except ConstitutionError as error:
        # The lines are those of the YAML that nobody has seen, so only the messages are of use.
        raise ConstitutionError(
            [Problem(file, None, problem.message) for problem in error.problems]
        ) from None
    return body


class _Dumper(yaml.SafeDumper):
    """Lists indented under their key, as people write them."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _read(text: str, file: str) -> Any:
    if len(text.encode()) > MAX_BYTES:
        raise _Bad(f"larger than {MAX_BYTES:,} bytes: not a constitution")
    if not text.lstrip().startswith(("{", "[")):
        return _list_items(text)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ConstitutionError(Problem(file, error.lineno, f"not JSON: {error.msg}")) from None
    except RecursionError:
        raise _Bad("nested too deeply") from None


def _convert(data: Any, dimension: str) -> dict[str, Any]:
    if isinstance(data, dict) and "constitutions" in data:
        entries = _expect(data["constitutions"], list, "constitutions")
        pairs = [
            (_text(entry, "critic", f"constitutions[{i}]"), _text(entry, "revision", f"constitutions[{i}]"))
            for i, entry in enumerate(entries)
        ]
        ids = _ids(critique for critique, _ in pairs)
        exemplars = [
            _exemplar(chat, i)
            for i, chat in enumerate(_expect(data.get("system_chat", []), list, "system_chat"))
        ]
        return {"critique": _critique(zip(ids, pairs, strict=True), dimension, exemplars)}
    if isinstance(data, dict):
        pairs = [
            (
                _unwrap(_text(entry, "prompt", key), "CritiqueRequest"),
                _unwrap(_text(entry, "edit_request", key), "RevisionRequest"),
            )
            for key, entry in data.items()
        ]
        return {"critique": _critique(zip(_ids(data), pairs, strict=True), dimension, [])}
    texts = [_unwrap(_expect(text, str, f"entry {i + 1}"), "Instruction") for i, text in enumerate(data)]
    if any("CritiqueRequest:" in text for text in texts):
        raise _Bad("holds worked examples (CritiqueRequest: …), not principles")
    split = [re.split(r"\s+(?:→|->)\s+", text, maxsplit=1) for text in texts]
    pairs = [(parts[0], parts[1]) for parts in split if len(parts) == 2]
    questions = [parts[0] for parts in split if len(parts) == 1]
    result: dict[str, Any] = {}
    if pairs:
        ids = _ids(critique for critique, _ in pairs)
        result["critique"] = _critique(zip(ids, pairs, strict=True), dimension, [])
    if questions:
        result["comparison"] = {
            "principles": [
                {"id": name, "question": question, "dimension": dimension, "weight": 1}
                for name, question in zip(_ids(questions), questions, strict=True)
            ]
        }
    if not result:
        raise _Bad("no principles found")
    return result


def _critique(
    named: Iterable[tuple[str, tuple[str, str]]], dimension: str, exemplars: list[dict[str, Any]]
) -> dict[str, Any]:
    principles = [
        {
            "id": name,
            "critique_request": critique,
            "revision_request": revision,
            "dimension": dimension,
            "weight": 1,
        }
        for name, (critique, revision) in named
    ]
    if not principles:
        raise _Bad("no principles found")
    return {"principles": principles} | ({"exemplars": exemplars} if exemplars else {})


def _exemplar(chat: Any, index: int) -> dict[str, Any]:
    """The last five turns are answer, critique request, critique, revision request, revision."""
    where = f"system_chat[{index}]"
    turns = _expect(chat, list, where)
    if len(turns) < 6:
        raise _Bad(
            f"{where}: {len(turns)} turns; at least 6 are needed (question, answer, critique, revision)"
        )
    texts = [_text(turn, "content", f"{where}[{i}]") for i, turn in enumerate(turns)]
    conversation = [
        {"role": _text(turn, "role", where), "content": text}
        for turn, text in zip(turns[:-5], texts[:-5], strict=True)
    ]
    fields = ("response", "critique_request", "critique", "revision_request", "revision")
    return {"conversation": conversation, **dict(zip(fields, texts[-5:], strict=True))}


def _list_items(text: str) -> list[str]:
    """The bullets of a list, continuation lines joined; without bullets, every line that is not a heading."""
    bullet = re.compile(r"\s*(?:[-*+•]|\d+[.)])\s+(.*)")
    items: list[str] = []
    open_item = False
    for line in text.splitlines():
        match = bullet.match(line)
        if match:
            items.append(match.group(1))
            open_item = True
        elif open_item and line.strip() and not line.lstrip().startswith("#"):
            items[-1] += " " + line.strip()
        else:
            open_item = False
    if not items:
        items = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return [one_line(re.sub(r"\*\*|__|`", "", item)) for item in items if item.strip()]


def _text(entry: Any, key: str, where: str) -> str:
    value = _expect(entry, dict, where).get(key)
    # The paper keeps its one prompt in a list.
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, str):
        raise _Bad(f"{where}: '{key}' must be a text" + ("" if key in entry else ", and is missing"))
    return value


def _expect(value: Any, kind: type, where: str) -> Any:
    if not isinstance(value, kind):
        name = "a list" if kind is list else "an object" if kind is dict else "a text"
        raise _Bad(f"{where} must be {name}")
    return value


def _unwrap(text: str, kind: str) -> str:
    before, after = (part.strip() for part in WRAPPING[kind])
    return one_line(text.strip().removeprefix(before).removesuffix(after))


def _ids(names: Iterable[str]) -> list[str]:
    """A readable id for each: its first telling words, numbered where two would be the same."""
    used: set[str] = set()
    ids = []
    for name in names:
        words = re.findall(r"[a-z0-9]+", name.casefold())
        telling = [word for word in words if word not in _COMMON_WORDS.split()] or words or ["principle"]
        base = "_".join(telling[:4])[:48]
        unique, number = base, 2
        while unique in used:
            unique, number = f"{base}_{number}", number + 1
        used.add(unique)
        ids.append(unique)
    return ids
