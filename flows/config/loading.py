"""Reading a run's configuration: YAML, overrides from the command line, and errors that name file and line."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from flows.config.fields import FromCommandLine
from flows.config.run import RunConfig
from flows.errors import FlowError
from training.config.yaml import Location, describe, read_yaml
from training.errors import TrainingError

_log = logging.getLogger(__name__)
_RENAMED: dict[Location, str] = {("report",): "prices", ("rl", "brake"): "early_stopping"}
"""Keys of the version before, with the last part of their names now."""
_PASSWORD = re.compile(r"(://[^:/@\s]*:)[^@\s]*@")


def load_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a YAML file as a RunConfig; each override is `section.field=value`, the value in YAML.

    Raises FlowError: one line naming file and line (or the override), field, value and what is allowed.
    """
    try:
        values, lines = read_yaml(path)
    except TrainingError as error:
        raise FlowError(str(error)) from error
    places: dict[Location, str] = {at: f"{path}:{line}" for at, line in lines.items()}
    for override in overrides:
        _apply(values, override, places)
    _rename(values, places, path)
    try:
        return RunConfig.model_validate(values, context={"folder": str(path.resolve().parent)})
    except ValidationError as error:
        message = describe(error, values, RunConfig, path=str(path), places=places, show=_short)
        raise FlowError(message) from error


def dump_config(config: RunConfig) -> str:
    """The resolved configuration as YAML, with absolute paths; loading it gives an equal one."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _rename(values: dict[str, Any], places: dict[Location, str], path: Path) -> None:
    """Read keys of the version before under their new names, with a line for each. Raises FlowError for both names."""
    for old, new in _RENAMED.items():
        *above, name = old
        section: Any = values
        for part in above:
            section = section.get(part) if isinstance(section, dict) else None
        if not isinstance(section, dict) or name not in section:
            continue
        given, wanted = ".".join(map(str, old)), ".".join(map(str, (*above, new)))
        place = places.get(old, str(path))
        value = section.pop(name)
        # A configuration that was written out whole says null of what was never stated.
        if any(one is not None for one in (value.values() if isinstance(value, dict) else [value])):
            if section.get(new) is not None:
                raise FlowError(
                    f"{place}: {given}: is called {wanted} now, which is given too; remove {given}"
                )
            _log.warning(
                "%s: %s is called %s now; the next version will not know the old name", place, given, wanted
            )
            section[new] = value
        for at in [at for at in places if at[: len(old)] == old]:
            places[(*above, new, *at[len(old) :])] = places.pop(at)


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


def _short(value: Any) -> str:
    text = _without_password(repr(str(value)) if isinstance(value, str) else repr(value))
    return text if len(text) <= 80 else text[:77] + "…"


def _without_password(text: str) -> str:
    return _PASSWORD.sub(r"\1***@", text)
