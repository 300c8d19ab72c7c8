"""People look at the judge's labels: the sample worth their eyes, their verdicts, and what these say of the judge."""

from judges.audit.card import Card, CardRow, report_card
from judges.audit.last_words import LastWord, last_words, last_words_digest
from judges.audit.people import Agreement, agreement, known_from_verdicts
from judges.audit.report import AuditReport, SampledPair, audit
from judges.audit.sample import hardness, sample
from judges.audit.settings import AuditSettings
from judges.audit.sheet import read_sheet, write_sheet
from judges.audit.verdicts import Given, record, shown_order, verdicts_digest

__all__ = [
    "Agreement",
    "AuditReport",
    "AuditSettings",
    "Card",
    "CardRow",
    "Given",
    "LastWord",
    "SampledPair",
    "agreement",
    "audit",
    "hardness",
    "known_from_verdicts",
    "last_words",
    "last_words_digest",
    "read_sheet",
    "record",
    "report_card",
    "sample",
    "shown_order",
    "verdicts_digest",
    "write_sheet",
]
