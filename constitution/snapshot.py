"""A constitution as JSON: the exact one that an attempt used, however its working file is edited later."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from constitution import (
    ComparisonExemplar,
    ComparisonPrinciple,
    Constitution,
    CritiqueExemplar,
    CritiquePrinciple,
)
from constitution.model import vars_of

_LISTS: dict[str, type] = {
    "critique": CritiquePrinciple,
    "comparison": ComparisonPrinciple,
    "critique_exemplars": CritiqueExemplar,
    "comparison_exemplars": ComparisonExemplar,
}


def to_json(constitution: Constitution) -> dict[str, Any]:
    """All fields as plain data; `from_json` gives an equal constitution."""
    fields = {name: getattr(constitution, name) for name in constitution.__dataclass_fields__}
    fields["metadata"] = dict(constitution.metadata)
    for name in _LISTS:
        fields[name] = [vars_of(item) for item in fields[name]]
    return json.loads(json.dumps(fields))


def from_json(fields: Mapping[str, Any]) -> Constitution:
    """The constitution that `to_json` took down."""
    values = dict(fields)
    for name, kind in _LISTS.items():
        values[name] = tuple(kind(**_restored(item)) for item in values[name])
    return Constitution(**values)


def _restored(item: Mapping[str, Any]) -> dict[str, Any]:
    if "conversation" not in item:
        return dict(item)
    return {**item, "conversation": tuple(item["conversation"])}
