"""Rows as files, as users have them."""

from __future__ import annotations

import gzip
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from judges.known import KnownPair, read_known_pairs


def write(path: Path, rows: Iterable[Any]) -> Path:
    """JSONL of rows (a text is a line as it stands), gzipped where the name says so."""
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    raw = text.encode("utf-8", "surrogatepass")
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


def known_pairs(rows: Iterable[Any]) -> list[KnownPair]:
    """The pairs that rows of any format hold."""
    with tempfile.TemporaryDirectory() as folder:
        return list(read_known_pairs(write(Path(folder) / "rows.jsonl", rows)))
