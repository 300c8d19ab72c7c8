"""Models that the configuration names: local directories and hub ids."""

from __future__ import annotations

import re
from pathlib import Path

from flows.runs.digests import digest_json, digest_model

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
