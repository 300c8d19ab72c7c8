"""What a run reads: digests of its data, prompts and models, so that `--resume` refuses what was exchanged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.files import write_json
from training.config.base import TrainConfig
from training.errors import TrainingError

FILE = "inputs.json"
# A file above this size is read in part: its ends and evenly spaced blocks, which another set of weights changes.
_WHOLE_BYTES = 64 * 2**20
_BLOCK_BYTES = 2**16
_BLOCKS = 256
_SKIPPED = {"output_dir", "metadata"}


def digests(config: TrainConfig) -> dict[str, str]:
    """A digest for each file or folder that a field of the config names, by its path."""
    fields = config.model_dump(exclude=_SKIPPED)
    return {path: _digest(Path(path)) for path in sorted(set(_paths(fields)))}


def write_inputs(config: TrainConfig) -> None:
    """Note in the run's folder what it reads, unless that was noted when it began."""
    path = config.output_dir / FILE
    if not path.exists():
        write_json(path, digests(config))


def refuse_other_inputs(config: TrainConfig) -> None:
    """Raises TrainingError when a file or a model is not what it was when the run began."""
    path = config.output_dir / FILE
    if not path.exists():
        return  # a run of an older version
    before = json.loads(path.read_text(encoding="utf-8"))
    now = digests(config)
    for name, digest in before.items():
        if now.get(name) != digest:
            what = "has other contents than" if name in now else "is gone, which was there"
            raise TrainingError(
                f"{path}: cannot resume: {name} {what} when the run began; put it back, or choose another output_dir"
            )


def _paths(value: Any) -> Iterator[str]:
    """Whatever names something on this disk: a field says so by holding the path of it."""
    if isinstance(value, dict):
        for item in value.values():
            yield from _paths(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _paths(item)
    elif isinstance(value, Path | str) and _exists(str(value)):
        yield str(value)


def _exists(text: str) -> bool:
    return 0 < len(text) < 4096 and "\0" not in text and Path(text).exists()


def _digest(path: Path) -> str:
    found = hashlib.sha256()
    files = (
        [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file() and _counts(p, path))
    )
    for file in files:
        found.update(f"{file.relative_to(path)}\0{file.stat().st_size}\0".encode())
        _add(found, file)
    return found.hexdigest()


def _counts(file: Path, folder: Path) -> bool:
    """Weights, configs, tokenizer and template; not what lies beside them, nor what a trainer left behind."""
    inside = file.relative_to(folder)
    if len(inside.parts) > 1 or file.name in ("result.json", "inputs.json"):
        return False
    return file.suffix in (".json", ".safetensors", ".jinja", ".model", ".txt")


def _add(found: Any, file: Path) -> None:
    size = file.stat().st_size
    with file.open("rb") as opened:
        if size <= _WHOLE_BYTES:
            found.update(opened.read())
            return
        for number in range(_BLOCKS + 1):
            opened.seek((size - _BLOCK_BYTES) * number // _BLOCKS)
            found.update(opened.read(_BLOCK_BYTES))
