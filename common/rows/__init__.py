"""The one reader of rows: prompts, demonstrations and preferences in the formats that people have (docs/data.md)."""

from __future__ import annotations

from common.rows.read import pair_digest, read_examples, read_preferences, read_prompts, report_left_out
from common.rows.records import Example, LeftOut, Message, Preference, Prompt, Rows
from common.rows.source import csv_rows, read_rows

__all__ = [
    "Example",
    "LeftOut",
    "Message",
    "Preference",
    "Prompt",
    "Rows",
    "csv_rows",
    "pair_digest",
    "read_examples",
    "read_preferences",
    "read_prompts",
    "read_rows",
    "report_left_out",
]
