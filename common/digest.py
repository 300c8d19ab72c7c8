"""Digests: sha256 of canonical JSON, of files, and of what is in them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def canonical(value: Any) -> str:
    """JSON with sorted keys, no spaces and no escapes beyond what JSON needs. NaN is refused (ValueError).

    Raises TypeError for a value that JSON cannot hold.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any) -> str:
    """sha256 (hex) of `canonical(value)` in UTF-8. Lone surrogates, which UTF-8 lacks, pass through."""
    return hashlib.sha256(canonical(value).encode("utf-8", "surrogatepass")).hexdigest()


def digest_bytes(path: Path) -> str:
    """sha256 (hex) of a file's bytes. Raises OSError."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_files(files: Mapping[str, Path]) -> str:
    """sha256 (hex) over names and contents of `files`, in the order of the names."""
    total = hashlib.sha256()
    for name in sorted(files):
        total.update(f"{name}\0{digest_bytes(files[name])}\n".encode())
    return total.hexdigest()
