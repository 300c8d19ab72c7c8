"""The ledger of judgements, labels and human verdicts, on SQLite or PostgreSQL."""

from judges.ledger.rows import Batch, Judgement, LabelRow, Verdict
from judges.ledger.store import Ledger

__all__ = ["Batch", "Judgement", "LabelRow", "Ledger", "Verdict"]
