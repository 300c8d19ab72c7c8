"""Rows of a file with the place of each: JSONL, a JSON list, CSV, plain text or Parquet, all also gzipped.

One strictness for every file. A row is a JSON object. Refused, each in a line that names the place: bytes that are not
UTF-8, NUL bytes, a key given twice, NaN and infinities, integers beyond 64 bits, lone surrogates (no file could hold
them), nesting deeper than 32 levels, a truncated archive. A byte-order mark, CRLF and blank lines are skipped.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import re
import zlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import IO, Any, NoReturn

from common.errors import DataError

Row = dict[str, Any]
SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".txt", ".parquet")
_BOM = b"\xef\xbb\xbf"
_GZIP = b"\x1f\x8b"
_DEEPEST = 32
_LARGEST = 2**63
_LONGEST_CELL = 10_000_000
_SURROGATE = re.compile("[\ud800-\udfff]")
_SPACE = re.compile(r"[ \t\n\r]*")


def read_rows(path: Path) -> Iterator[tuple[str, Row]]:
    """(place, row) of every row; a place is `file:line`, or `file:number` of a row of Parquet.

    The suffix names the kind (`SUFFIXES`); JSON is a list or a row a line, by its first character. Of plain text each
    line is the prompt of a row, of CSV every value is text, and empty cells are absent. Raises DataError.
    """
    path = Path(path)
    suffix = Path(path.name.removesuffix(".gz")).suffix
    if not path.exists():
        raise DataError(f"{path}: no such file")
    if suffix not in SUFFIXES:
        raise DataError(f"{path}: unknown kind of file; {', '.join(SUFFIXES)} are read, each also with .gz")
    reader = {".csv": _csv, ".txt": _text, ".parquet": _parquet}.get(suffix, _json)
    for place, row in reader(path):
        _check(row, place, ())
        yield place, row


def csv_rows(path: Path, needed: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    """(place, row) of a CSV file; a row's place is the line on which it begins. All columns, empty cells as "".

    Raises DataError, also for a file without one of the `needed` columns.
    """
    csv.field_size_limit(_LONGEST_CELL)
    line = 0
    with _opened(path) as stream:
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
        try:
            reader = csv.DictReader(text, strict=True)
            columns = reader.fieldnames or ()
            if missing := [name for name in needed if name not in columns]:
                raise DataError(f"{path}:1: no column {', '.join(missing)}; needed are {', '.join(needed)}")
            if twice := [name for name in columns if list(columns).count(name) > 1]:
                raise DataError(f"{path}:1: column {twice[0]} is given twice")
            line = reader.line_num
            for row in reader:
                place, line = f"{path}:{line + 1}", reader.line_num
                if any(value and "\0" in value for value in row.values() if isinstance(value, str)):
                    raise DataError(f"{place}: holds a NUL byte")
                if None in row:
                    raise DataError(f"{place}: more cells than the {len(columns)} columns")
                yield place, {name: value or "" for name, value in row.items()}
        except csv.Error as error:
            raise DataError(f"{path}:{line + 1}: not CSV: {error}") from None
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: is not UTF-8: {error.reason}") from None


def fail(place: str, field: str, problem: str) -> NoReturn:
    """Raises DataError for a field of the row at `place`."""
    raise DataError(f"{place}: {field}: {problem}")


def kind(value: Any) -> str:
    """What a value is, in the words of JSON."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    names = {str: "text", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return "an empty list" if value == [] else names.get(type(value), type(value).__name__)


class _opened:
    """The bytes of a file, unpacked where it is gzipped; what goes wrong in reading them is a DataError."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> IO[bytes]:
        try:
            self._file: Any = self._path.open("rb")
            packed = self._file.read(2) == _GZIP
            self._file.seek(0)
        except OSError as error:
            raise DataError(f"{self._path}: cannot be read: {error.strerror}") from None
        if packed:
            self._file = gzip.GzipFile(fileobj=self._file)
        elif self._path.suffix == ".gz":
            self._file.close()
            raise DataError(f"{self._path}: is not gzip, whatever its name says")
        return self._file

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._file.close()
        if isinstance(error, (OSError, EOFError, zlib.error)):
            reason = getattr(error, "strerror", None) or error
            raise DataError(f"{self._path}: cannot be read: {reason}") from None


def _json(path: Path) -> Iterator[tuple[str, Row]]:
    with _opened(path) as stream:
        first = True
        for number, line in enumerate(stream, 1):
            if number == 1:
                line = line.removeprefix(_BOM)
            if not line.strip():
                continue
            if first and line.lstrip().startswith(b"["):
                rest = chain([line], stream)
                yield from _json_list(_utf8(b"".join(rest), f"{path}:{number}"), path, number)
                return
            first = False
            place = f"{path}:{number}"
            yield place, _object(_utf8(line, place), place)


def _json_list(text: str, path: Path, line: int) -> Iterator[tuple[str, Row]]:
    """The objects of a JSON list that begins on `line`, each with the line on which it begins."""
    at = _SPACE.match(text).end() + 1  # type: ignore[union-attr]
    counted, first = 0, True

    def skip(to: int) -> str:
        nonlocal at, counted, line
        at = _SPACE.match(text, to).end()  # type: ignore[union-attr]
        line, counted = line + text.count("\n", counted, at), at
        return text[at : at + 1]

    character = skip(at)
    while character != "]":
        if not first and character == ",":
            character = skip(at + 1)
        elif not first:
            raise DataError(f"{path}:{line}: is not JSON: expected , or ] after a row")
        first = False
        place = f"{path}:{line}"
        value, end = _decoded(lambda: _DECODER.raw_decode(text, at), place, at)
        yield place, _row(value, place)
        character = skip(end)
    if skip(at + 1):
        raise DataError(f"{path}:{line}: is not JSON: text after the list")


def _object(text: str, place: str) -> Row:
    return _row(_decoded(lambda: _DECODER.decode(text), place, 0), place)


def _decoded(decode: Any, place: str, start: int) -> Any:
    try:
        return decode()
    except json.JSONDecodeError as error:
        within = error.doc.count("\n", start, error.pos)
        path, _, line = place.rpartition(":")
        where = f"{path}:{int(line) + within}" if start else place
        raise DataError(f"{where}: is not JSON: {error.msg}") from None
    except RecursionError:
        raise DataError(f"{place}: is nested deeper than {_DEEPEST} levels") from None
    except ValueError as error:
        raise DataError(f"{place}: {error}") from None


def _pairs(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice}: the key is given twice")
    return row


def _number(text: str) -> int:
    return int(text) if len(text) < 100 else 10**100  # too large in any case, as `_check` says with its field


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs, parse_int=_number, parse_constant=float)


def _row(value: Any, place: str) -> Row:
    if not isinstance(value, dict):
        raise DataError(f"{place}: expected an object, got {kind(value)}")
    return value


def _utf8(raw: bytes, place: str) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        path, _, line = place.rpartition(":")
        number = int(line) + raw.count(b"\n", 0, error.start)
        raise DataError(f"{path}:{number}: is not UTF-8 (byte 0x{raw[error.start]:02x})") from None


def _text(path: Path) -> Iterator[tuple[str, Row]]:
    with _opened(path) as stream:
        for number, line in enumerate(stream, 1):
            place = f"{path}:{number}"
            text = _utf8(line.removeprefix(_BOM) if number == 1 else line, place).rstrip("\r\n")
            if "\0" in text:
                raise DataError(f"{place}: holds a NUL byte")
            if text.strip():
                yield place, {"prompt": text}


def _csv(path: Path) -> Iterator[tuple[str, Row]]:
    for place, row in csv_rows(path, ()):
        yield place, {name: value for name, value in row.items() if value != ""}


def _parquet(path: Path) -> Iterator[tuple[str, Row]]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    # pandas writes a missing number as NaN.
                    yield (
                        f"{path}:{number}",
                        {name: None if value != value else value for name, value in row.items()},
                    )
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: is not Parquet: {' '.join(str(error).split())}") from None


def _check(value: Any, place: str, at: tuple[str, ...]) -> None:
    """Raises DataError for a text or a number that a row cannot hold."""
    if isinstance(value, str):
        if found := _SURROGATE.search(value):
            fail(place, _path(at), f"holds a lone surrogate (U+{ord(found.group()):04X}), which is not text")
    elif isinstance(value, float):
        if not math.isfinite(value):
            fail(place, _path(at), f"{value} is no finite number")
    elif isinstance(value, int):
        if abs(value) > _LARGEST:
            fail(place, _path(at), "the number is larger than 64 bits hold")
    elif isinstance(value, (dict, list)):
        if len(at) >= _DEEPEST:
            raise DataError(f"{place}: {_path(at[:2])}: is nested deeper than {_DEEPEST} levels")
        for name, part in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(name, str) and _SURROGATE.search(name):
                raise DataError(f"{place}: a key holds a lone surrogate, which is not text")
            _check(part, place, (*at, f".{name}" if isinstance(name, str) else f"[{name}]"))


def _path(at: tuple[str, ...]) -> str:
    return "".join(at).removeprefix(".")
