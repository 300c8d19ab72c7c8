"""Settings in YAML, checked by Pydantic: a mistake is one line with file, line, field, value and what is allowed.

Imports no torch.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, Tag, ValidationError

from training.errors import TrainingError

Location = tuple[str | int, ...]


def read_yaml(path: Path) -> tuple[dict[str, Any], dict[Location, int]]:
    """A file's values, and the line of each field.

    Raises TrainingError when it cannot be read, is not YAML, is no mapping or has a key twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise TrainingError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise TrainingError(f"{path}: is not UTF-8: {error.reason}") from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise TrainingError(f"{path}{line}: not YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise TrainingError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        found = "an empty file" if values is None else type(values).__name__
        raise TrainingError(f"{path}: expected fields and values, got {found}")
    lines: dict[Location, int] = {}
    _collect_lines(node, (), lines, path)
    return values, lines


def describe(
    error: ValidationError,
    values: Any,
    config_class: type[BaseModel],
    *,
    path: str,
    places: Mapping[Location, str],
    show: Callable[[Any], str] = repr,
) -> str:
    """The first problem in one line. `places` says where a field stands; `show` writes a value."""
    problems = error.errors(include_url=False)
    problem = problems[0]
    at = _without_tags(problem["loc"], values, keep_last=problem["type"] == "missing")
    known = at
    while known and known not in places:
        known = known[:-1]
    place = places[known] if known else path
    field = ".".join(map(str, at))
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        names = _field_names(config_class, problem["loc"][:-1])
        close = difflib.get_close_matches(str(at[-1]), names, n=1)
        message = f"no such field; did you mean {close[0]}?" if close else "no such field"
        if not close:
            message += f"; known: {', '.join(names)}"
    elif problem["type"] == "missing":
        message = "is required"
    elif field and not isinstance(problem["input"], (dict, BaseModel)):
        message = f"{show(problem['input'])} is not allowed: {message}"
    message = " ".join(message.split())
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{place}: {field + ': ' if field else ''}{message}{more}"


def _collect_lines(node: Any, at: Location, lines: dict[Location, int], path: Path) -> None:
    lines.setdefault(at, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*at, key.value)
            if inner in lines:
                raise TrainingError(f"{path}:{key.start_mark.line + 1}: {key.value} is given twice")
            lines[inner] = key.start_mark.line + 1
            _collect_lines(value, inner, lines, path)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _collect_lines(value, (*at, index), lines, path)


def _without_tags(location: Location, values: Any, *, keep_last: bool) -> Location:
    """A problem's location as the file has it: Pydantic names the member of a union as if it were a field."""
    kept: list[str | int] = []
    for number, part in enumerate(location):
        inside = range(len(values)) if isinstance(values, (list, tuple)) else values
        if isinstance(inside, (dict, range)) and part in inside:
            values = values[part]
            kept.append(part)
        elif keep_last and number == len(location) - 1:
            kept.append(part)
    return tuple(kept)


def _field_names(config_class: type[BaseModel], location: Location) -> list[str]:
    current, members = [config_class], list[tuple[set[Any], type[BaseModel]]]()
    for part in location:
        if any(part in model.model_fields for model in current):
            annotations = [m.model_fields[str(part)].annotation for m in current if part in m.model_fields]
            members = [member for annotation in annotations for member in _members(annotation)]
            current = [model for _, model in members]
        elif not isinstance(part, int):  # the tag of a union's member
            current = [model for tags, model in members if part in tags] or current
    return sorted({name for model in current for name in model.model_fields})


def _members(annotation: Any) -> list[tuple[set[Any], type[BaseModel]]]:
    """The models in an annotation, each with the tags that choose it among a union's members."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        literals = [get_args(info.annotation) for info in annotation.model_fields.values()]
        return [({value for values in literals for value in values if isinstance(value, str)}, annotation)]
    found = []
    for argument in get_args(annotation):
        for tags, model in _members(argument):
            named = {m.tag for m in get_args(annotation)[1:] if isinstance(m, Tag)}
            found.append((tags | named, model))
    return found
