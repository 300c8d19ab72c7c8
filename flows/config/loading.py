"""Reading a run's configuration: YAML, overrides from the command line, and errors that name file and line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from flows.config.run import RunConfig
from flows.config.types import FromCommandLine
from flows.errors import FlowError

Location = tuple[str | int, ...]

_PASSWORD = re.compile(r"(://[^:/@\s]*:)[^@\s]*@")


def load_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a YAML file as a RunConfig; each override is `section.field=value`, the value in YAML.

    Raises FlowError: one line naming file and line (or the override), field, value and what is allowed.
    """
    values, lines = _read(path)
    places: dict[Location, str] = {at: f"{path}:{line}" for at, line in lines.items()}
    for override in overrides:
        _apply(values, override, places)
    try:
        return RunConfig.model_validate(values, context={"folder": str(path.resolve().parent)})
    except ValidationError as error:
        raise FlowError(_describe(error, str(path), places)) from error


def dump_config(config: RunConfig) -> str:
    """The resolved configuration as YAML, with absolute paths; loading it gives an equal one."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _read(path: Path) -> tuple[dict[str, Any], dict[Location, int]]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise FlowError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise FlowError(f"{path}: is not UTF-8: {error.reason}") from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise FlowError(f"{path}{line}: not YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise FlowError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        found = "an empty file" if values is None else type(values).__name__
        raise FlowError(f"{path}: expected fields and values, got {found}")
    lines: dict[Location, int] = {}
    _collect_lines(node, (), lines, path)
    return values, lines


def _collect_lines(node: Any, at: Location, lines: dict[Location, int], path: Path) -> None:
    lines.setdefault(at, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*at, key.value)
            if inner in lines:
                raise FlowError(f"{path}:{key.start_mark.line + 1}: {key.value} is given twice")
            lines[inner] = key.start_mark.line + 1
            _collect_lines(value, inner, lines, path)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _collect_lines(value, (*at, index), lines, path)


def _apply(values: dict[str, Any], override: str, places: dict[Location, str]) -> None:
    name, equals, text = override.partition("=")
    place = f"--set {_without_password(override)}"
    if not equals or not name:
        raise FlowError(f"{place}: expected section.field=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise FlowError(f"{place}: the value is not YAML: {' '.join(str(error).split())}") from error
    parts = name.split(".")
    target = values
    for part in parts[:-1]:
        inner = target.get(part)
        if inner is None:
            inner = target[part] = {}
        if not isinstance(inner, dict):
            raise FlowError(f"{place}: {part} is not a section")
        target = inner
    target[parts[-1]] = _marked(value)
    for at in [at for at in places if at[: len(parts)] == tuple(parts)]:
        del places[at]
    places[tuple(parts)] = place


def _marked(value: Any) -> Any:
    if isinstance(value, str):
        return FromCommandLine(value)
    if isinstance(value, list):
        return [_marked(item) for item in value]
    if isinstance(value, dict):
        return {key: _marked(item) for key, item in value.items()}
    return value


def _describe(error: ValidationError, path: str, places: dict[Location, str]) -> str:
    problems = error.errors(include_url=False)
    problem = problems[0]
    location = tuple(problem["loc"])
    known = location
    while known and known not in places:
        known = known[:-1]
    place = places[known] if known else path
    field = ".".join(str(part) for part in location)
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        names = _field_names(location[:-1])
        close = difflib.get_close_matches(str(location[-1]), names, n=1)
        message = "no such field" + (
            f"; did you mean {close[0]}?" if close else f"; known: {', '.join(names)}"
        )
    elif problem["type"] == "missing":
        message = "is required"
    elif field and not isinstance(problem["input"], (dict, BaseModel)):
        message = f"{_short(problem['input'])} is not allowed: {message}"
    message = " ".join(message.split())
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{place}: {field + ': ' if field else ''}{message}{more}"


def _short(value: Any) -> str:
    text = _without_password(repr(str(value)) if isinstance(value, str) else repr(value))
    return text if len(text) <= 80 else text[:77] + "…"


def _without_password(text: str) -> str:
    return _PASSWORD.sub(r"\1***@", text)


def _field_names(location: Location) -> list[str]:
    current: Any = RunConfig
    for part in location:
        info = getattr(current, "model_fields", {}).get(part)
        current = info.annotation if info else None
        for option in getattr(current, "__args__", ()):
            if isinstance(option, type) and issubclass(option, BaseModel):
                current = option
    return sorted(getattr(current, "model_fields", {}))
