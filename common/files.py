"""Writing files and folders whole or not at all, and so that a power cut leaves the old one or the new one."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write a file or a folder to; at the end it takes the place of `path`.

    What was written is on the disk before it is renamed, and the rename before this returns. After an error nothing
    has changed and nothing is left behind.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        yield beside
        for part in beside.rglob("*") if beside.is_dir() else ():
            _sync(part)
        _sync(beside)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        os.replace(beside, path)
        _sync(path.parent)
    finally:
        _remove(beside)


def move_into(source: Path, target: Path) -> None:
    """Move a model folder's files into `target`, each whole or not at all, and remove `source`.

    config.json comes last: a folder without it is not yet a model.
    """
    target.mkdir(parents=True, exist_ok=True)
    files = sorted(source.iterdir(), key=lambda f: (f.name == "config.json", f.name))
    for file in files:
        _sync(file)
    for file in files:
        os.replace(file, target / file.name)
    _sync(target)
    source.rmdir()


def write_atomically(path: Path, text: str) -> None:
    """Write a UTF-8 text file, whole or not at all. A lone surrogate, which is no text, becomes a question mark."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8", errors="replace", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, whole or not at all."""
    write_atomically(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[Any]) -> int:
    """Write rows as JSONL, whole or not at all; returns how many."""
    count = 0
    with (
        replacing(path) as beside,
        beside.open("w", encoding="utf-8", errors="replace", newline="\n") as file,
    ):
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    path.unlink(missing_ok=True)
