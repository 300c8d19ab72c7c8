"""What a model's directory holds, looked at before anything heavy is imported or loaded."""

from __future__ import annotations

import json
import os
from pathlib import Path

from training.errors import TrainingError

# What a class is called that continues a text.
_CAUSAL = ("CausalLM", "LMHead", "ConditionalGeneration")


def continues_text(architecture: str) -> bool:
    """Whether a model class of this name continues a text."""
    return any(name in architecture for name in _CAUSAL)


def check_model(ref: str, *, head: str | None = None) -> None:
    """Look at a local model directory before anything heavy is loaded.

    `head` is `causal` (a language model's head is needed) or `reward` (a sequence-classification head with
    one label). A `ref` that is no local path is left to the hub's own errors.

    Raises TrainingError.
    """
    path = Path(ref)
    if not path.exists():
        if ref.count("/") == 1 and not ref.startswith((".", "/")):
            return
        raise TrainingError(f"model {ref}: no such directory")
    if not path.is_dir():
        raise TrainingError(
            f"model {ref}: is a file; a model is a directory with config.json and safetensors"
        )
    if not any(path.iterdir()):
        raise TrainingError(f"model {ref}: the directory is empty")
    config_path = path / "config.json"
    if not config_path.exists():
        if (path / "adapter_config.json").exists():
            raise TrainingError(f"model {ref}: is a LoRA adapter; merge it into its base model first")
        raise TrainingError(f"model {ref}: has no config.json")
    try:
        config = json.loads(config_path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TrainingError(f"{config_path}: is not JSON: {error}") from error
    for file in _weight_files(path):
        check_safetensors(file)
    architecture = (config.get("architectures") or ["unknown"])[0]
    is_reward = "SequenceClassification" in architecture
    if head == "causal" and is_reward:
        raise TrainingError(
            f"model {ref}: {architecture} has a classification head; a causal language model is needed"
        )
    if head == "causal" and architecture != "unknown" and not continues_text(architecture):
        raise TrainingError(
            f"model {ref}: {architecture} does not continue a text; a causal language model is needed"
        )
    if head == "reward" and not is_reward:
        raise TrainingError(
            f"model {ref}: {architecture} has no reward head; train one with training.reward_model"
        )
    labels = config.get("num_labels") or len(config.get("id2label") or {0: 0, 1: 1})
    if head == "reward" and labels != 1:
        raise TrainingError(f"model {ref}: has {labels} labels; a reward model has one")


def _weight_files(path: Path) -> list[Path]:
    """One file, or all those that the index of a sharded model names."""
    whole, index = path / "model.safetensors", path / "model.safetensors.index.json"
    if whole.exists():
        return [whole]
    if not index.exists():
        raise TrainingError(f"model {path}: has no safetensors weights")
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainingError(f"{index}: is no index of a sharded model: {error!r}") from error
    for name in names:
        if not (path / name).exists():
            raise TrainingError(f"model {path}: has no {name}, which {index.name} names")
    return [path / name for name in names]


def check_safetensors(path: Path) -> None:
    """Look at a file's header and length, not at its weights.

    Raises TrainingError for a file that was cut off, or is something else (a Git LFS pointer, say).
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            size = os.fstat(file.fileno()).st_size
            if not 2 <= length <= size - 8:
                raise TrainingError(f"{path}: is not a whole safetensors file: it ends within its header")
            header = json.loads(file.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        if isinstance(error, TrainingError):
            raise
        raise TrainingError(
            f"{path}: is not a whole safetensors file: {' '.join(str(error).split())}"
        ) from error
    expected = 8 + length + max(ends, default=0)
    if size != expected:
        raise TrainingError(f"{path}: is not a whole safetensors file: it has {size:,} bytes of {expected:,}")
