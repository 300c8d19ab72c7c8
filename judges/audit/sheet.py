"""Verdicts in bulk: a CSV of pairs that a person fills in with a spreadsheet, and its way back."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

from common.files import replacing
from common.text import printable
from judges.audit.verdicts import Given, Said, shown_order
from judges.errors import JudgeError
from judges.ledger import Ledger
from judges.ledger.reading import LabelledPair, labelled_pairs
from judges.records import ORDERS

COLUMNS = ("pair_id", "label", "shown", "prompt", "A", "B", "verdict", "note")
_READ = ("pair_id", "label", "shown", "verdict", "note")
_LONGEST_CELL = 10_000_000
# A spreadsheet would take a cell that begins so for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_sheet(labelled: Iterable[LabelledPair], out: Path, *, reviewer: str, seed: int = 0) -> int:
    """Writes pairs with empty verdicts and returns how many. The judge's own verdicts are not shown.

    Control characters are written out, and a text that a spreadsheet would run as a formula gets an apostrophe.
    """
    rows = 0
    with replacing(out) as part, part.open("w", encoding="utf-8", errors="replace", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        for one in labelled:
            order = shown_order(one.pair.id, reviewer, seed=seed)
            texts = {"a": one.pair.a, "b": one.pair.b}
            prompt = "\n\n".join(f"{m['role']}: {m['content']}" for m in one.pair.prompt)
            shown = [prompt, *(texts[name] for name in order)]
            writer.writerow([one.pair.id, one.label.digest, order, *map(_cell, shown), "", ""])
            rows += 1
    return rows


def read_sheet(ledger: Ledger, label_set: str, path: Path) -> list[Given]:
    """The verdicts of a filled-in sheet; rows without one, or with "skip", are left out.

    Everything is checked before anything is returned. Raises JudgeError in one line that names file, line, field
    and value.
    """
    rows = list(_rows(path))
    known = {
        one.pair.id: one
        for one in labelled_pairs(ledger, label_set, pair_ids={row["pair_id"] for _, row in rows})
    }
    given = []
    for line, row in rows:
        one = known.get(row["pair_id"])
        if one is None:
            raise _bad(path, line, "pair_id", row["pair_id"], f"no such pair in label set {label_set[:12]}")
        if row["label"] and row["label"] != one.label.digest:
            raise _bad(path, line, "label", row["label"], "the pair has another label now; export it again")
        if row["shown"] not in ORDERS:
            raise _bad(path, line, "shown", row["shown"], "allowed are ab and ba, as it was exported")
        said = _said(row["verdict"])
        if said is None:
            raise _bad(path, line, "verdict", row["verdict"], "allowed are A, B, tie, skip, or nothing")
        if said != "skip":
            given.append(Given(labelled=one, shown=row["shown"], said=said, note=row["note"].strip()))
    return given


def _said(text: str) -> Said | None:
    folded = text.strip().casefold()
    return next((said for said in get_args(Said) if said.casefold() == (folded or "skip")), None)


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line on which it begins, row) of the file."""
    csv.field_size_limit(_LONGEST_CELL)
    seen: dict[str, int] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            missing = [name for name in _READ if name not in (reader.fieldnames or ())]
            if missing:
                raise JudgeError(f"{path}:1: no column {', '.join(missing)}; needed are {', '.join(_READ)}")
            line = reader.line_num
            for row in reader:
                begins, line = line + 1, reader.line_num
                values = {name: row[name] or "" for name in _READ}
                if values["pair_id"] in seen:
                    other = f"line {seen[values['pair_id']]} has it already"
                    raise _bad(path, begins, "pair_id", values["pair_id"], other)
                seen[values["pair_id"]] = begins
                yield begins, values
    except (OSError, UnicodeDecodeError) as error:
        raise JudgeError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    except csv.Error as error:
        raise JudgeError(f"{path}:{line + 1}: not CSV: {error}") from None


def _bad(path: Path, line: int, field: str, value: str, why: str) -> JudgeError:
    shown = repr(value if len(value) <= 60 else value[:59] + "…")
    return JudgeError(f"{path}:{line}: {field}: {shown} is not allowed: {why}")


def _cell(text: str) -> str:
    shown = printable(text)
    return f"'{shown}" if shown.startswith(_FORMULA) else shown
