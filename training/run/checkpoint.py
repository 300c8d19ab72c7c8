"""Checkpoints that appear whole or not at all, and hold everything that an exact resume needs.

A checkpoint is a directory `checkpoints/step-00000120/` of JSON and safetensors files, no pickles. It is
written under another name and renamed when complete; the last n are kept.
"""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from common.files import replacing
from training.errors import TrainingError
from training.models.files import check_safetensors

# The names of a checkpoint's trees: one that lost a file is not taken for one that never had it.
_CONTENTS = "contents.json"
_NAME = re.compile(r"step-([0-9]{8})")


def save_tree(directory: Path, name: str, tree: Any) -> None:
    """Write nested dicts, lists, tensors and JSON values as `<name>.json` and `<name>.safetensors`.

    Tuples come back as lists. A tensor that occurs twice (tied weights) is stored once.
    """
    tensors: dict[str, torch.Tensor] = {}
    seen: dict[tuple, str] = {}
    structure = _flatten(tree, tensors, seen)
    save_file(tensors, directory / f"{name}.safetensors")
    (directory / f"{name}.json").write_text(json.dumps(structure), encoding="utf-8")


def load_tree(directory: Path, name: str) -> Any:
    """What `save_tree` wrote, tensors on the CPU. Raises TrainingError when a file is missing or damaged."""
    return _read_tree(directory, name, load_file)


class Checkpoints:
    """The checkpoints of one run.

    `save(step, {"model": …, "optimizer": …})` writes each named tree into its own pair of files; `load(step)`
    gives them back. With several processes only the main one saves what they share; what differs between them
    (random states) goes through `gather_rng`.
    """

    def __init__(self, output_dir: Path, *, keep: int = 2) -> None:
        self.directory = Path(output_dir) / "checkpoints"
        self.keep = keep

    def steps(self) -> list[int]:
        """The steps that have a complete checkpoint, ascending."""
        if not self.directory.is_dir():
            return []
        found = (_NAME.fullmatch(path.name) for path in self.directory.iterdir())
        return sorted(int(match.group(1)) for match in found if match)

    def latest(self) -> int | None:
        """The last complete checkpoint's step, or None."""
        steps = self.steps()
        return steps[-1] if steps else None

    def path(self, step: int) -> Path:
        return self.directory / f"step-{step:08d}"

    def save(self, step: int, trees: dict[str, Any]) -> Path:
        """Write a checkpoint atomically and remove the ones beyond the last `keep`."""
        target = self.path(step)
        for killed in self.directory.glob(".step-*.tmp"):
            shutil.rmtree(killed)
        with replacing(target) as beside:
            beside.mkdir()
            for name, tree in trees.items():
                save_tree(beside, name, tree)
            (beside / _CONTENTS).write_text(json.dumps(sorted(trees)), encoding="utf-8")
        for old in self.steps()[: -self.keep]:
            shutil.rmtree(self.path(old))
        return target

    def load(self, step: int) -> dict[str, Any]:
        """All trees of a checkpoint. Raises TrainingError."""
        directory = self.path(step)
        return {name: load_tree(directory, name) for name in _contents(directory)}

    def check(self, step: int) -> None:
        """Look at all that `load` reads, but for the weights themselves. Raises TrainingError."""
        directory = self.path(step)
        for name in _contents(directory):
            for file in (f"{name}.json", f"{name}.safetensors"):
                if not (directory / file).exists():
                    raise TrainingError(f"checkpoint {directory}: has no {file}")
            check_safetensors(directory / f"{name}.safetensors")
            _read_tree(directory, name, lambda path: dict.fromkeys(safe_open(path, "pt").keys()))

    def clear(self) -> None:
        """Remove every checkpoint, complete or not: the run is finished."""
        shutil.rmtree(self.directory, ignore_errors=True)


def rng_state() -> dict[str, Any]:
    """The random states of this process: Python's, torch's, and the current CUDA device's."""
    version, internal, gauss = random.getstate()
    state: dict[str, Any] = {"python": [version, list(internal), gauss], "torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_rng_state(state: dict[str, Any]) -> None:
    """Put back what `rng_state` took."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def _contents(directory: Path) -> list[str]:
    """The names of a checkpoint's trees."""
    try:
        return list(json.loads((directory / _CONTENTS).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise TrainingError(f"checkpoint {directory}: {_CONTENTS} cannot be read: {reason}") from error


def _read_tree(directory: Path, name: str, tensors: Callable[[Path], Mapping[str, Any]]) -> Any:
    try:
        structure = json.loads((directory / f"{name}.json").read_text(encoding="utf-8"))
        return _restore(structure, tensors(directory / f"{name}.safetensors"))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise TrainingError(f"checkpoint {directory}: {name} cannot be read: {reason}") from error


def _flatten(tree: Any, tensors: dict[str, torch.Tensor], seen: dict[tuple, str]) -> Any:
    if isinstance(tree, torch.Tensor):
        key = (tree.data_ptr(), tuple(tree.shape), tree.stride(), tree.dtype, str(tree.device))
        if key not in seen or tree.numel() == 0:
            seen[key] = str(len(tensors))
            tensors[seen[key]] = tree.detach().cpu().contiguous()
        return {"tensor": seen[key]}
    if isinstance(tree, dict):
        return {"items": [[_flatten(k, tensors, seen), _flatten(v, tensors, seen)] for k, v in tree.items()]}
    if isinstance(tree, (list, tuple)):
        return [_flatten(value, tensors, seen) for value in tree]
    if tree is None or isinstance(tree, (bool, int, float, str)):
        return tree
    raise TypeError(f"a checkpoint cannot hold a {type(tree).__name__}")


def _restore(structure: Any, tensors: Mapping[str, Any]) -> Any:
    if isinstance(structure, dict):
        if "tensor" in structure:
            return tensors[structure["tensor"]]
        return {k: _restore(v, tensors) for k, v in structure["items"]}
    if isinstance(structure, list):
        return [_restore(value, tensors) for value in structure]
    return structure
