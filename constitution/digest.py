"""Digests of meaning: sha256 of canonical JSON, taken after texts were normalised."""

from __future__ import annotations

import hashlib
import json
import unicodedata


def canonical_json(data: object) -> str:
    """JSON with sorted keys, no spaces, and characters as themselves: one text per meaning."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_of(data: object) -> str:
    """sha256, in hex, of the canonical JSON of `data`."""
    return hashlib.sha256(canonical_json(data).encode()).hexdigest()


def one_line(text: str) -> str:
    """A principle's text: NFC, every run of white space one space. How a file wraps it leaves no trace."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def tidy_block(text: str) -> str:
    """An exemplar's text: NFC, outer white space and line-end spaces off; its line breaks stay."""
    lines = unicodedata.normalize("NFC", text).replace("\r\n", "\n").split("\n")
    return "\n".join(line.rstrip() for line in lines).strip()
