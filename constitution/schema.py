"""Checking a parsed file against the JSON Schema, and saying what is wrong in a person's words."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from constitution.model import Problem
from constitution.source import FieldPath, Source

SCHEMA_PATH = Path(__file__).parent / "schema" / "constitution.schema.json"

_TYPE_WORDS = {
    "object": "a mapping (key: value)",
    "array": "a list",
    "string": "a text",
    "number": "a number",
    "boolean": "true or false",
}


@cache
def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a constitution file."""
    return json.loads(SCHEMA_PATH.read_text(encoding="utf-8"))


@cache
def _validator() -> Draft202012Validator:
    return Draft202012Validator(schema())


def schema_problems(source: Source) -> list[Problem]:
    """Everything in the file that the schema does not allow, in the order of the lines."""
    found = {
        source.problem(path, f"{field}: {message}" if (field := field_name(source, shown)) else message)
        for error in _validator().iter_errors(source.data)
        for path, shown, message in _explain(error)
    }
    return sorted(found)


def field_name(source: Source, path: FieldPath) -> str:
    """A path as people write it, principles by their id: `comparison.principles[brevity].weight`."""
    name, here = "", source.data
    for key in path:
        if isinstance(key, int):
            here = here[key]
            label = here.get("id") if isinstance(here, dict) else None
            name += f"[{label if isinstance(label, str) else key + 1}]"
        else:
            here = here.get(key)
            name += f".{key}" if name else str(key)
    return name


def nearest(word: str, known: list[str]) -> str:
    """A hint at what `word` was meant to be, or at all that is known."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}"


def _explain(error: ValidationError) -> Iterator[tuple[FieldPath, FieldPath, str]]:
    """(path that gives the line, path that names the field, message) for one error of jsonschema."""
    path: FieldPath = tuple(error.absolute_path)
    value: Any = error.instance
    limit: Any = error.validator_value
    rule: Any = error.schema
    if error.validator == "additionalProperties" and limit is False:
        known = list(rule["properties"])
        for key in value:
            if key not in rule["properties"]:
                yield (*path, key), path, f"unknown field '{key}'; {nearest(key, known)}"
        return
    if error.validator == "required":
        missing = [key for key in limit if key not in value]
        message = f"missing {', '.join(repr(key) for key in missing)}"
    elif error.validator == "type":
        message = f"expected {_TYPE_WORDS[limit]}, got {describe(value)}"
        if limit == "string" and isinstance(value, (bool, int, float)):
            message += "; put it in quotes"
        if limit == "string" and isinstance(value, dict):
            message += "; a text that contains ': ' needs quotes"
    elif error.validator == "pattern":
        message = f"{describe(value)} {rule['patternErrorMessage']}"
    elif error.validator == "enum":
        message = f"expected {' or '.join(limit)}, got {describe(value)}"
    elif error.validator in ("minimum", "maximum"):
        message = f"{value:g} is out of range; it must be 0 to 1,000,000"
    elif error.validator == "maxLength":
        message = f"{len(value):,} characters; at most {limit:,} are allowed"
    elif error.validator in ("minItems", "maxItems", "maxProperties"):
        message = (
            f"{len(value):,} entries; at {'least' if error.validator == 'minItems' else 'most'} {limit:,}"
        )
    elif error.validator == "anyOf":
        message = "no principles: give 'critique', 'comparison' or both (or 'extends' a published version)"
    else:
        raise AssertionError(f"the schema uses '{error.validator}', which has no message")
    yield path, path, message


def describe(value: Any) -> str:
    """A value in a message, by kind and clipped."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str):
        text = value if len(value) <= 40 else value[:39] + "…"
        return json.dumps(text, ensure_ascii=False)
    return f"the number {value}"
