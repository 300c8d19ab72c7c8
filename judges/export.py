"""Preferences for training: `prompt/chosen/rejected` with the soft label, as JSONL and Parquet."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import IO, Any, Protocol, Self

from common.files import replacing
from judges.errors import JudgeError
from judges.ledger import Ledger
from judges.ledger.reading import LabelledPair, labelled_pairs
from judges.records import STATUSES, Status

ROWS_PER_GROUP = 5_000
"""Rows held at a time; memory stays flat however many labels there are."""


def export_preferences(
    ledger: Ledger,
    label_set: str,
    out: Path,
    *,
    statuses: Sequence[Status] = ("ok",),
    pair_ids: Collection[str] | None = None,
) -> dict[Status, int]:
    """Writes the labels of `label_set` that have one of `statuses`; returns the count of every status.

    `out` ends in .jsonl or .parquet, or has no suffix and both are written. Rows are sorted by pair id:
    `{"pair_id", "prompt", "chosen", "rejected", "p", "status", "principles", "label_digest", "source"}`, `p` in
    [0.5, 1] being the probability that `chosen` is better. Where a person has judged the pair, their verdict is
    the label (`source` "human", p = 1); a human tie counts as status "tie". Two equal responses are no
    preference and never written. Raises JudgeError for a status that has no probability, and when the files
    cannot be written: then none of them is.
    """
    for status in statuses:
        if status not in ("ok", "tie", "inconsistent"):
            raise JudgeError(f"status {status!r} has no probability: export some of ok, tie, inconsistent")
    counts: Counter[Status] = Counter()

    def rows() -> Iterator[dict[str, Any]]:
        for labelled in labelled_pairs(ledger, label_set, pair_ids=pair_ids):
            row = preference(labelled)
            counts[effective_status(labelled)] += 1
            if row is not None and row["status"] in statuses:
                yield row

    _write(rows(), Path(out))
    return {status: counts[status] for status in STATUSES if counts[status]}


def effective_status(labelled: LabelledPair) -> Status:
    """The status after a person's verdict: a decision is "ok", an undecided person a "tie"."""
    if labelled.verdict is None:
        return labelled.label.status
    return "tie" if labelled.verdict.winner == "tie" else "ok"


def preference(labelled: LabelledPair) -> dict[str, Any] | None:
    """One row of the export; None where there is no probability or the responses are equal."""
    pair, label = labelled.pair, labelled.label
    p = label.p
    if labelled.verdict is not None:
        p = {"a": 1.0, "b": 0.0, "tie": 0.5}[labelled.verdict.winner]
    if p is None or pair.a == pair.b:
        return None
    chosen, rejected = (pair.a, pair.b) if p >= 0.5 else (pair.b, pair.a)
    return {
        "pair_id": pair.id,
        "prompt": [dict(m) for m in pair.prompt],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
        "p": max(p, 1.0 - p),
        "status": effective_status(labelled),
        "principles": list(label.principles),
        "label_digest": label.digest,
        "source": "judge" if labelled.verdict is None else "human",
    }


def _write(rows: Iterator[dict[str, Any]], out: Path) -> None:
    """Writes both files, or neither."""
    if out.suffix not in ("", ".jsonl", ".parquet"):
        raise JudgeError(f"{out}: an export ends in .jsonl or .parquet, or has no suffix for both")
    targets = [out] if out.suffix else [out.with_name(f"{out.name}{s}") for s in (".jsonl", ".parquet")]
    try:
        with ExitStack() as stack:
            parts = [stack.enter_context(replacing(target)) for target in targets]
            with ExitStack() as open_files:
                writers = [
                    open_files.enter_context(_writer_for(target.suffix)(part))
                    for target, part in zip(targets, parts, strict=True)
                ]
                lines = map(json_line, rows)
                while group := list(islice(lines, ROWS_PER_GROUP)):
                    for writer in writers:
                        writer.write(group)
    except OSError as error:
        raise JudgeError(f"{out}: {error.strerror or error}; nothing was exported") from error


class _Writer(Protocol):
    def __init__(self, path: Path) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...
    def write(self, lines: Sequence[str]) -> None: ...


def _writer_for(suffix: str) -> type[_Writer]:
    return _JsonLines if suffix == ".jsonl" else _Parquet


class _JsonLines:
    """Rows as UTF-8 JSON, one a line."""

    def __init__(self, path: Path) -> None:
        self._file: IO[str] = path.open("w", encoding="utf-8", newline="\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, lines: Sequence[str]) -> None:
        self._file.writelines(lines)


class _Parquet:
    """The same rows as Parquet, one row group per call."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        messages = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
        self._schema = pa.schema(
            [
                ("pair_id", pa.string()),
                ("prompt", messages),
                ("chosen", messages),
                ("rejected", messages),
                ("p", pa.float64()),
                ("status", pa.string()),
                ("principles", pa.list_(pa.string())),
                ("label_digest", pa.string()),
                ("source", pa.string()),
            ]
        )
        self._writer = pq.ParquetWriter(path, self._schema)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def write(self, lines: Sequence[str]) -> None:
        import pyarrow as pa

        rows = [json.loads(line) for line in lines]
        self._writer.write_table(pa.Table.from_pylist(rows, schema=self._schema))


def json_line(row: dict[str, Any]) -> str:
    """A row as a line of UTF-8 JSON."""
    # Lone surrogates are not Unicode text: no UTF-8 file can hold them, a question mark stands in.
    text = json.dumps(row, ensure_ascii=False)
    return text.encode("utf-8", "replace").decode() + "\n"
