"""Model text in views: shown as text, never as markup."""

from __future__ import annotations

import re

from common.text import printable

# Where an address is taken apart: behind `www`, the colon of `://`, and `@` (but for that of a version, name@1.2.0,
# which people copy).
_ADDRESS = re.compile(r"www(?=\.)|:(?=//)|@(?!\d+\.\d+\.\d+(?![\w.-]))", re.IGNORECASE)
_PUNCTUATION = re.compile(r"[!-/:-@\[-`{-~]")
_SYNTAX = re.compile(r"[^\w\s,.;:?!'()\u0080-\U0010ffff-]|_")


# Prefect's page decodes these references in Markdown and shows others as they stand; what is left takes a backslash.
_NAMED = {"<": "&lt;", ">": "&gt;", "&": "&amp;", '"': "&quot;", "'": "&#39;"}


def escape_markdown(text: str, *, limit: int = 2000) -> str:
    """Text that a Markdown renderer shows letter by letter, on one line, clipped to `limit` characters.

    Every ASCII punctuation mark is escaped, so neither Markdown nor HTML finds its syntax; characters that control,
    hide or turn text round are written out; addresses do not become links. Inside an HTML element use `escape_html`.
    """
    shown = unlinked(printable(clip(text, limit)))
    return _PUNCTUATION.sub(lambda m: _NAMED.get(m.group(), f"\\{m.group()}"), shown)


def escape_html(text: str, *, limit: int = 2000) -> str:
    """The same inside an HTML element of Markdown, such as `<summary>`, where a backslash would be shown."""
    return _PUNCTUATION.sub(lambda m: f"&#{ord(m.group())};", unlinked(printable(clip(text, limit))))


def unlinked(text: str) -> str:
    """Text in which no renderer finds an address to link, whatever is escaped in it: GitHub's Markdown looks for them
    in the text that is left after parsing. An invisible U+2060 (word joiner) parts `://`, `www.` and `@`."""
    return _ADDRESS.sub(lambda m: f"{m.group()}\u2060", text)


def plain(text: str, *, limit: int = 160) -> str:
    """Text for a place that one page takes for Markdown and another shows letter by letter, on one line.

    No escape reads well in both, so a mark that Markdown or HTML knows becomes a space, and a dot inside a word, which
    could make an address, one that looks the same. Long words are parted: such a place may not wrap them.
    """
    words = " ".join(_SYNTAX.sub(" ", printable(clip(text, limit))).split())
    words = re.sub(r"(\S{40})(?=\S)", r"\1 ", words)
    return re.sub(r"\.(?=\w)", "\u2024", words)


def clip(text: str, limit: int = 60) -> str:
    """Text on one line, cut to `limit` characters."""
    one_line = " ".join(text.split())
    return one_line if len(one_line) <= limit else one_line[: limit - 1] + "…"
