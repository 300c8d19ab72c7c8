"""Model text for a terminal: nothing in it may move the cursor, change colours or hide."""

from __future__ import annotations

import unicodedata

# Invisible or direction-changing characters that make text read as what it is not.
_TRICKS = {"Cc", "Cf", "Co", "Cs", "Cn"}


def printable(text: str) -> str:
    """`text` with every control and format character but newline and tab written out as `\\x1b` or `\\u202e`."""
    return "".join(c if c in "\n\t" or unicodedata.category(c) not in _TRICKS else _escape(c) for c in text)


def clipped(text: str, width: int) -> str:
    """One printable line of at most `width` characters."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= width else line[: width - 1] + "…"


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
