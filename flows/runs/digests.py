"""Digests of what goes into a stage and of what comes out of it, models by folder or hub id among it.

A digest is the SHA-256, in hex, of canonical JSON (sorted keys, no spaces, UTF-8), of a file's bytes, or of a
model directory's files by name. Digests of large files are remembered by path, size and modification time.
"""

from __future__ import annotations

import json
import re
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


_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_COMMIT = re.compile(r"models--[^/]+/snapshots/([0-9a-f]{40})/")


def is_hub_id(ref: str) -> bool:
    """Whether `ref` has the form `organisation/name` and is no local directory."""
    return bool(_HUB_ID.fullmatch(ref)) and not Path(ref).exists()


def model_digest(ref: str) -> str:
    """Digest of a local model's files, or of a hub id with the commit that the local cache holds."""
    if not is_hub_id(ref):
        return digest_model(Path(ref))
    return digest_json({"hub": ref, "commit": cached_commit(ref)})


def cached_commit(ref: str) -> str | None:
    """The commit of a hub model in the local cache, or None when it was not downloaded yet."""
    found = local_folder(ref)
    match = _COMMIT.search(f"{found.as_posix()}/") if found is not None else None
    return match.group(1) if match else None


def local_folder(ref: str) -> Path | None:
    """The folder of a model: a local one as it is, of a hub id its snapshot in the cache, None when there is none."""
    if not is_hub_id(ref):
        return Path(ref)
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(ref, "config.json")
    return Path(found).parent if isinstance(found, str) else None
