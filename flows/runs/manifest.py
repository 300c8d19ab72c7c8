"""The manifest of a finished stage: what went in, what came out, what it cost.

It is written last; a stage folder without one is unfinished work.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from common.files import write_json
from flows.errors import FlowError

NAME = "manifest.json"
_PACKAGES = ("charter", "torch", "transformers", "prefect")


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """A file or model directory with the digest of its content."""

    path: str
    digest: str


@dataclass(frozen=True, kw_only=True)
class PeakMemory:
    """Largest resident set sizes in bytes: of this process, of one child process, and of all together."""

    process_bytes: int
    child_bytes: int
    total_bytes: int


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """See schema/manifest.schema.json for what each field means."""

    stage: str
    key: str
    code_version: int
    created_at: str
    seconds: float
    config: Mapping[str, Any]
    constitution: Mapping[str, Any] | None
    inputs: Mapping[str, FileRecord]
    outputs: Mapping[str, FileRecord]
    metrics: Mapping[str, Any]
    peak_memory: PeakMemory
    versions: Mapping[str, str]

    def write(self, directory: Path) -> None:
        """Write `manifest.json` into the stage's folder, which marks the stage as finished."""
        value = {"schema_version": 1, **asdict(self)}
        _check(value, directory / NAME)
        write_json(directory / NAME, value)

    @classmethod
    def read(cls, directory: Path) -> Manifest | None:
        """The manifest in a stage's folder, or None where the stage is not finished.

        Raises FlowError for a damaged manifest.
        """
        path = directory / NAME
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise FlowError(f"{path}: cannot be read: {error}; delete it to run the stage again") from error
        _check(value, path)
        del value["schema_version"]
        value["peak_memory"] = PeakMemory(**value["peak_memory"])
        for files in ("inputs", "outputs"):
            value[files] = {name: FileRecord(**record) for name, record in value[files].items()}
        return cls(**value)


def versions() -> dict[str, str]:
    """Versions of the packages that shape results; one that is not installed is left out."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


@cache
def _validator() -> Any:
    import jsonschema

    text = (
        resources.files("flows.runs").joinpath("schema", "manifest.schema.json").read_text(encoding="utf-8")
    )
    return jsonschema.Draft202012Validator(json.loads(text))


def _check(value: Any, path: Path) -> None:
    for error in _validator().iter_errors(value):
        field = ".".join(str(part) for part in error.absolute_path) or "(whole file)"
        raise FlowError(f"{path}: {field}: {error.message}")
