"""What can go wrong in the ground floor, as one clear line."""

from __future__ import annotations


class DataError(ValueError):
    """A file that cannot be read, or a row that fits no format: `file:line: field: what is wrong`."""
