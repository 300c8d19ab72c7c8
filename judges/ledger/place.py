"""Where a ledger lies, from what a person names: a URL, a file, or a run's folder."""

from __future__ import annotations

from pathlib import Path

from judges.errors import LedgerError


def ledger_url(place: str | None = None) -> str:
    """The URL or path of a ledger; without a place, that of the newest run under `runs/`.

    Raises LedgerError when there is no such run. Whether a named place holds a ledger shows when it is opened.
    """
    if place is None:
        found = sorted(Path("runs").glob("*/ledger.db"), key=lambda p: p.stat().st_mtime)
        if not found:
            raise LedgerError("no ledger under runs/: name one with --ledger")
        return str(found[-1])
    if "://" in place:
        return place
    path = Path(place)
    return str(path / "ledger.db" if path.is_dir() else path)
