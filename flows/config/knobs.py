"""Sections made from a trainer's own config: its fields, bounds and descriptions, less what the pipeline fills in."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from copy import copy
from typing import Any

from pydantic import BaseModel, create_model, model_validator

from flows.config.types import Section


def knobs(
    source: type[BaseModel], *, filled: Mapping[str, Any], without: Collection[str] = (), **defaults: Any
) -> Any:
    """A base class with the fields of `source`, less those in `filled` and `without`; `defaults` replace its own.

    `filled` gives stand-ins for the fields that the pipeline sets itself, so that the checks that `source`
    makes across fields run when the configuration is read.
    """
    fields: dict[str, Any] = {}
    for name, info in source.model_fields.items():
        if name in filled or name in without:
            continue
        mine = copy(info)
        if name in defaults:
            mine.default, mine.default_factory = defaults[name], None
        fields[name] = (info.annotation, mine)
    unknown = defaults.keys() - fields.keys()
    assert not unknown, f"{source.__name__} has no field {', '.join(sorted(unknown))}"

    def check(self: BaseModel) -> BaseModel:
        own = {name: getattr(self, name) for name in fields}
        source.model_validate({**filled, **own})
        return self

    return create_model(
        f"{source.__name__}Knobs",
        __base__=Section,
        __validators__={"check": model_validator(mode="after")(check)},  # type: ignore[dict-item]
        **fields,
    )
