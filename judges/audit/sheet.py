"""Verdicts in bulk: a CSV of pairs that a person fills in with a spreadsheet, and its way back."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import get_args

from common.files import replacing
from common.rows import csv_rows
from common.text import printable
from judges.audit.verdicts import Given, Said, shown_order
from judges.errors import JudgeError
from judges.ledger import Ledger
from judges.ledger.reading import LabelledPair, labelled_pairs
from judges.records import ORDERS

COLUMNS = ("pair_id", "label", "shown", "prompt", "A", "B", "verdict", "note")
_READ = ("pair_id", "label", "shown", "verdict", "note")
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

    Everything is checked before anything is returned. Raises JudgeError or DataError in one line that names
    file, line, field and value.
    """
    rows = list(_rows(path))
    known = {
        one.pair.id: one
        for one in labelled_pairs(ledger, label_set, pair_ids={row["pair_id"] for _, row in rows})
    }
    given = []
    for place, row in rows:
        one = known.get(row["pair_id"])
        if one is None:
            raise _bad(place, "pair_id", row["pair_id"], f"no such pair in label set {label_set[:12]}")
        if row["label"] and row["label"] != one.label.digest:
            raise _bad(place, "label", row["label"], "the pair has another label now; export it again")
        if row["shown"] not in ORDERS:
            raise _bad(place, "shown", row["shown"], "allowed are ab and ba, as it was exported")
        said = _said(row["verdict"])
        if said is None:
            raise _bad(place, "verdict", row["verdict"], "allowed are A, B, tie, skip, or nothing")
        if said != "skip":
            given.append(Given(labelled=one, shown=row["shown"], said=said, note=row["note"].strip()))
    return given


def _said(text: str) -> Said | None:
    folded = text.strip().casefold()
    return next((said for said in get_args(Said) if said.casefold() == (folded or "skip")), None)


def _rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """(place, row) of the file; every pair once."""
    seen: dict[str, str] = {}
    for place, row in csv_rows(path, _READ):
        if row["pair_id"] in seen:
            raise _bad(place, "pair_id", row["pair_id"], f"{seen[row['pair_id']]} has it already")
        seen[row["pair_id"]] = f"line {place.rpartition(':')[2]}"
        yield place, row


def _bad(place: str, field: str, value: str, why: str) -> JudgeError:
    shown = repr(value if len(value) <= 60 else value[:59] + "…")
    return JudgeError(f"{place}: {field}: {shown} is not allowed: {why}")


def _cell(text: str) -> str:
    shown = printable(text)
    return f"'{shown}" if shown.startswith(_FORMULA) else shown
