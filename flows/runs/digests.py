"""Digests of what goes into a stage and of what comes out of it.

A digest is the SHA-256, in hex, of canonical JSON (sorted keys, no spaces, UTF-8), of a file's bytes, or of a
model directory's files by name. Digests of large files are remembered by path, size and modification time.
"""

from __future__ import annotations

import json
from pathlib import Path

from common.digest import digest as digest_json
from common.digest import digest_bytes
from common.files import write_atomically
from flows.errors import FlowError

MODEL_FILES = (
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "adapter_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "*.model",
)

_remembered: dict[tuple[str, int, int], str] = {}


def digest_file(path: Path) -> str:
    """SHA-256 of a file's bytes.

    Raises FlowError when the file cannot be read.
    """
    try:
        state = path.stat()
        known = (str(path), state.st_size, state.st_mtime_ns)
        if known not in _remembered:
            _remembered[known] = digest_bytes(path)
    except OSError as error:
        raise FlowError(f"{path}: cannot be read: {error.strerror}") from error
    return _remembered[known]


def digest_model(directory: Path) -> str:
    """Digest of the files of a Hugging Face model directory that decide what the model says.

    Metrics, logs, checkpoints and cards beside them do not count.

    Raises FlowError when there are no such files.
    """
    files = sorted({path for pattern in MODEL_FILES for path in directory.glob(pattern)})
    if not files:
        raise FlowError(f"{directory}: holds no model (no config.json, no *.safetensors)")
    return digest_json({path.name: digest_file(path) for path in files})


def digest_path(path: Path) -> str:
    """Digest of a file, or of a model directory."""
    return digest_model(path) if path.is_dir() else digest_file(path)


def remember_digests(path: Path) -> None:
    """Load digests noted by an earlier process, so that gigabytes of weights are read only once."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    _remembered.update({(name, size, mtime): digest for name, size, mtime, digest in rows})


def note_digests(path: Path, *, at_least: int = 1 << 20) -> None:
    """Write the known digests of files of `at_least` bytes for the next process."""
    rows = [[*known, digest] for known, digest in sorted(_remembered.items()) if known[1] >= at_least]
    write_atomically(path, json.dumps(rows))
