"""What the sections of a run's configuration share: their types, and sections made from a trainer's own config.

A relative path in a config file starts at the file's folder; one given on the command line (`--set`) starts
at the working directory. The loader passes the file's folder as validation context.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from copy import copy
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    create_model,
    model_validator,
)

_URL = re.compile(r"^[a-z][a-z0-9+.-]+://")
_CONSTITUTION_PATH = re.compile(r"[/\\]|\.ya?ml$")


class FromCommandLine(str):
    """A text given with --set."""


class Section(BaseModel):
    """A frozen part of the configuration that refuses unknown fields; a field's docstring is its description."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), use_attribute_docstrings=True
    )


def plain_fields(schema: dict[str, Any]) -> None:
    """Take None out of what a form asks, for which Prefect's page would show a choice of two types: such a field may
    be left empty, and its server takes null for any field without a default. A text that is empty by default must be
    given."""
    for name, field in schema.get("properties", {}).items():
        if field.get("default") == "":
            del field["default"]
            schema.setdefault("required", []).append(name)
        kinds = [kind for kind in field.get("anyOf", []) if kind != {"type": "null"}]
        if len(kinds) == 1 and field.get("default", 0) is None:
            del field["anyOf"], field["default"]
            field.update(kinds[0])


class Form(BaseModel):
    """What a person fills in to start a flow. A field that was emptied again counts as left out."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra=plain_fields)

    @model_validator(mode="before")
    @classmethod
    def _emptied(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        optional = {name for name, field in cls.model_fields.items() if field.get_default() is None}
        return {name: value for name, value in values.items() if value != "" or name not in optional}


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


def _base(value: str, info: ValidationInfo) -> Path:
    folder = (info.context or {}).get("folder")
    return Path.cwd() if folder is None or isinstance(value, FromCommandLine) else Path(folder)


def _path(value: Any, info: ValidationInfo) -> Any:
    if not isinstance(value, str):
        return value
    if not value.strip():
        raise ValueError("must name a file or folder")
    return (_base(value, info) / Path(value).expanduser()).resolve()


def resolve_model(value: Any, info: ValidationInfo) -> Any:
    """A folder beside the config becomes an absolute path; `organisation/name` stays a hub id."""
    if not isinstance(value, str) or not value.strip():
        return value
    path = (_base(value, info) / Path(value).expanduser()).resolve()
    hub = value.count("/") == 1 and not value.startswith((".", "/", "~"))
    return str(value) if hub and not path.exists() else str(path)


def _constitution(value: Any, info: ValidationInfo) -> Any:
    if not isinstance(value, str) or not _CONSTITUTION_PATH.search(value):
        return value
    return str(_path(value, info))


def _templates(value: Any, info: ValidationInfo) -> Any:
    return str(_path(value, info)) if isinstance(value, str) and "/" in value else value


def _runs_dir(value: Any, info: ValidationInfo) -> Any:
    if not isinstance(value, str) or not _URL.match(value):
        return _path(value, info)
    if "@" in value or "?" in value:
        raise ValueError(
            "a URL here holds no credentials and no options: they come from the environment (AWS_…)"
        )
    if not value.partition("://")[2].strip("/"):
        raise ValueError("must name a bucket: s3://bucket/runs")
    return str(value).rstrip("/")


ConfigPath = Annotated[Path, BeforeValidator(_path)]
ModelRef = Annotated[str, Field(min_length=1), BeforeValidator(resolve_model)]
ConstitutionRef = Annotated[str, Field(min_length=1), BeforeValidator(_constitution)]
TemplatesRef = Annotated[str, Field(min_length=1), BeforeValidator(_templates)]
RunsDir = Annotated[Path | str, BeforeValidator(_runs_dir)]
