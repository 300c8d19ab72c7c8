"""Frozen dataclasses that are kept as JSON: attributes in the program, the same keys as ever in the file.

How a field is kept, where not under its name, stands in its type: `Annotated[Estimate | None, ABSENT]`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from functools import cache
from types import UnionType
from typing import Annotated, Any, Self, Union, get_args, get_origin, get_type_hints


class _Kept(Enum):
    ABSENT = "no key in the file while it is None"
    EMPTY = "`{}` in the file while it is None"
    REST = "a mapping of all keys that no other field has, which stand among the others in the file"


ABSENT, EMPTY, REST = _Kept.ABSENT, _Kept.EMPTY, _Kept.REST


@dataclass(frozen=True)
class Key:
    """The field's key in the file."""

    name: str


class Record:
    """Base of frozen dataclasses that are written as JSON and read back by the types of their fields."""

    def to_json(self) -> dict[str, Any]:
        """Plain data; `from_json` takes it back."""
        data: dict[str, Any] = {}
        for name, key, kept, _ in _fields(type(self)):
            value = getattr(self, name)
            if kept is REST:
                data |= plain(value)
            elif value is not None or kept is not ABSENT:
                data[key] = {} if value is None and kept is EMPTY else plain(value)
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The record of what `to_json` gave; keys that no field has are passed over.

        Raises TypeError where a key is missing whose field has no default.
        """
        own = {key for _, key, kept, _ in _fields(cls) if kept is not REST}
        found = {}
        for name, key, kept, kind in _fields(cls):
            if kept is REST:
                found[name] = _typed(kind, {k: value for k, value in data.items() if k not in own})
            elif key in data:
                found[name] = None if kept is EMPTY and not data[key] else _typed(kind, data[key])
        return cls(**found)


def plain(value: Any) -> Any:
    """Records and dataclasses as dicts, tuples as lists, whatever they are inside of."""
    if isinstance(value, Record):
        return value.to_json()
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value


def _fields(cls: Any) -> list[tuple[str, str, _Kept | None, Any]]:
    return _fields_of(cls)


@cache
def _fields_of(cls: Any) -> list[tuple[str, str, _Kept | None, Any]]:
    """(name, key, how it is kept, type) of each field."""
    hints = get_type_hints(cls, include_extras=True)
    found: list[tuple[str, str, _Kept | None, Any]] = []
    for one in fields(cls):
        kind: Any = hints[one.name]
        extras: list[Any] = []
        if get_origin(kind) is Annotated:
            kind, *extras = get_args(kind)
        key = next((extra.name for extra in extras if isinstance(extra, Key)), one.name)
        found.append((one.name, key, next((e for e in extras if isinstance(e, _Kept)), None), kind))
    return found


def _typed(kind: Any, value: Any) -> Any:
    """JSON's value as the type of its field has it."""
    origin, arguments = get_origin(kind), get_args(kind)
    if value is None:
        return None
    if origin in (Union, UnionType):
        wanted = [one for one in arguments if one is not type(None)]
        return _typed(wanted[0], value) if len(wanted) == 1 else value
    if origin in (tuple, list, Sequence):
        return tuple(_typed(arguments[0], one) for one in value)
    if origin in (dict, Mapping):
        return {key: _typed(arguments[1], one) for key, one in value.items()}
    if isinstance(kind, type) and issubclass(kind, Record):
        return kind.from_json(value)
    return kind(**value) if is_dataclass(kind) and isinstance(kind, type) else value
