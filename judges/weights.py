"""Which model a folder holds: digests of the files that decide its answers, and of no others."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from common.digest import digest_files

_TOKENIZER = (
    "*.jinja",
    "*.model",
    "added_tokens.json",
    "chat_template.json",
    "merges.txt",
    "special_tokens_map.json",
    "tekken.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)
_MODEL = ("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json")
# Every JSON file counted up to schema 0005 of the ledger: a report beside the weights made them another judge.
_FORMER = ("*.safetensors", "*.json", "*.jinja", "*.model", "merges.txt", "vocab.txt")


def model_revision(folder: Path) -> str:
    """Digest of weights, configuration, tokenizer and chat template."""
    return _digest(folder, (*_MODEL, *_TOKENIZER))


def former_revision(folder: Path) -> str:
    """The digest by which ledgers written before schema 0006 know the same folder."""
    return _digest(folder, _FORMER)


def tokenizer_digest(folder: Path) -> str:
    """The first 16 digits of the digest of tokenizer and chat template."""
    return _digest(folder, _TOKENIZER)[:16]


def _digest(folder: Path, patterns: Iterable[str]) -> str:
    return digest_files({p.name: p for pattern in patterns for p in folder.glob(pattern)})
