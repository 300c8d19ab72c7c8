"""What the ledger has of the judgements that are wanted: by labelling, and by the plan that counts them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from judges.asking.questions import Vote
from judges.ledger import Ledger
from judges.records import Reading


@dataclass(frozen=True, kw_only=True)
class Known:
    """By the keys of votes: their readings, the former keys under which some are stored, and the failures that the
    way of serving caused, which hold as long as it does."""

    readings: dict[str, Reading]
    stored_as: dict[str, str]
    caused: dict[str, Reading]


def look_up(ledger: Ledger, votes: Collection[Vote]) -> Known:
    """What is known of `votes`. Raises LedgerError."""
    keys = {vote.key for vote in votes}
    readings = ledger.readings(keys)
    former = {v.former_key: v.key for v in votes if v.former_key and v.key not in readings}
    found = ledger.former_readings(former)
    readings |= {former[key]: reading for key, reading in found.items()}
    return Known(
        readings=readings,
        stored_as={former[key]: key for key in found},
        caused=ledger.caused_failures(keys - readings.keys()),
    )
