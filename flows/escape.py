"""Model text in views: shown as text, never as markup."""

from __future__ import annotations

import re

from judges.text import printable

_PUNCTUATION = re.compile(r"[!-/:-@\[-`{-~]")


def escape_markdown(text: str, *, limit: int = 2000) -> str:
    """Text that a Markdown renderer shows letter by letter, on one line, clipped to `limit` characters.

    Every ASCII punctuation mark becomes a character reference, so neither Markdown nor HTML finds its syntax;
    characters that control, hide or turn text round are written out.
    """
    one_line = printable(clip(text, limit))
    return _PUNCTUATION.sub(lambda match: f"&#{ord(match.group())};", one_line)


def clip(text: str, limit: int = 60) -> str:
    """Text on one line, cut to `limit` characters."""
    one_line = " ".join(text.split())
    return one_line if len(one_line) <= limit else one_line[: limit - 1] + "…"
