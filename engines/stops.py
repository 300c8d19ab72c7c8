"""The tokens that end an answer: one set, in process and over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from common.chat import stop_token_ids


def stop_ids(tokenizer: Any, generation_config: Any = None) -> tuple[int, ...]:
    """The tokenizer's and template's own stops and all that a generation config names: none, one or several."""
    named = getattr(generation_config, "eos_token_id", None)
    return tuple(sorted({*stop_token_ids(tokenizer), *_several(named)}))


def folder_stop_ids(folder: Path, tokenizer: Any) -> tuple[int, ...]:
    """The same for a model folder's own generation_config.json and config.json."""
    found = set(stop_token_ids(tokenizer))
    for name in ("generation_config.json", "config.json"):
        try:
            found |= _several(json.loads((folder / name).read_text(encoding="utf-8")).get("eos_token_id"))
        except (OSError, ValueError, AttributeError):
            continue
    return tuple(sorted(found))


def _several(named: Any) -> set[int]:
    ids: Iterable[Any] = named if isinstance(named, list | tuple) else [named]
    return {i for i in ids if type(i) is int and i >= 0}
