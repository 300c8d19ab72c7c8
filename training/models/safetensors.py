"""Whether a safetensors file is whole, from its header and its length. Imports no torch."""

from __future__ import annotations

import json
import os
from pathlib import Path

from training.errors import TrainingError


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
