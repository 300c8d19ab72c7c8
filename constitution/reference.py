"""The field reference of docs/constitution.md, written from the JSON Schema.

python -m constitution.reference docs/constitution.md      # rewrites the part between the markers
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from constitution.schema import schema

BEGIN, END = "<!-- fields: begin, written by python -m constitution.reference -->", "<!-- fields: end -->"

_TITLES = {
    "critique_principle": "A critique-revision principle",
    "comparison_principle": "A comparison principle",
    "critique_exemplar": "A critique exemplar",
    "comparison_exemplar": "A comparison exemplar",
    "message": "A message",
}
# Without `extends`, these are required too; the schema says so under "else".
_REQUIRED_WITHOUT_BASE = {
    "critique_principle": ("critique_request", "revision_request", "dimension"),
    "comparison_principle": ("question", "dimension"),
}


def field_reference() -> str:
    """Markdown tables of every field: name, whether it is required, what it holds, what it means."""
    root = schema()
    parts = [_table("The file", root, root, root["required"])]
    for half in ("critique", "comparison"):
        parts.append(_table(f"`{half}`", root["properties"][half], root, ("principles",)))
    for name, title in _TITLES.items():
        definition = root["$defs"][name]
        required = (*definition["required"], *_REQUIRED_WITHOUT_BASE.get(name, ()))
        parts.append(_table(title, definition, root, required))
    return "\n".join(parts)


def update(text: str) -> str:
    """`text` with the part between the markers written anew. Raises ValueError without the markers."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no markers {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{field_reference()}\n{END}{after}"


def _table(title: str, definition: dict[str, Any], root: dict[str, Any], required: Any) -> str:
    lines = [f"### {title}", "", "| field | holds | meaning |", "|---|---|---|"]
    for name, field in definition["properties"].items():
        target = _resolve(field, root)
        mark = " *" if name in required else ""
        meaning = field.get("description") or target.get("description", "")
        lines.append(f"| `{name}`{mark} | {_holds(target)} | {meaning} |")
    return "\n".join([*lines, ""])


def _resolve(field: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    """The definition a field refers to, followed to its end; the nearest description wins."""
    merged: dict[str, Any] = dict(field)
    while "$ref" in merged:
        target = root["$defs"][merged.pop("$ref").rsplit("/", 1)[-1]]
        merged = {**target, **merged}
    return merged


def _holds(field: dict[str, Any]) -> str:
    if "enum" in field:
        return " or ".join(f"`{value}`" for value in field["enum"])
    if field["type"] == "array":
        return f"list, up to {field['maxItems']:,}"
    if field["type"] == "object":
        return "mapping"
    if field["type"] == "number":
        return f"number, {field['minimum']:,} to {field['maximum']:,}"
    if field["type"] == "boolean":
        return "`true` or `false`"
    rule = field.get("patternErrorMessage", "")
    rule = "" if rule == "must not be empty" else rule.removeprefix("must be ")
    limit = f"up to {field['maxLength']:,} characters" if "maxLength" in field else ""
    return ", ".join(part for part in ("text", rule, limit) if part)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.write_text(update(target.read_text(encoding="utf-8")), encoding="utf-8")
