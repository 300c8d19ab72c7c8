"""Sections made from a trainer's own config: its fields, bounds and descriptions, less what the pipeline fills in."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from copy import copy
from typing import Any

from pydantic import BaseModel, create_model, model_validator

from flows.config.fields import Section


def knobs(
    source: type[BaseModel],
    *,
    filled: Mapping[str, Any],
    without: Collection[str] = (),
    check: bool = True,
) -> Any:
    """A base class with the fields of `source`, less those in `filled` and `without`.

    `filled` gives stand-ins for the fields that the pipeline sets itself, so that the checks that `source`
    makes across fields run when the configuration is read; with `check` off the section does that itself.
    """
    fields: dict[str, Any] = {
        name: (info.annotation, copy(info))
        for name, info in source.model_fields.items()
        if name not in filled and name not in without
    }

    def across_fields(self: BaseModel) -> BaseModel:
        own = {name: getattr(self, name) for name in fields}
        source.model_validate({**filled, **own})
        return self

    return create_model(
        f"{source.__name__}Knobs",
        __base__=Section,
        __validators__={"across_fields": model_validator(mode="after")(across_fields)} if check else {},  # type: ignore[dict-item]
        **fields,
    )
