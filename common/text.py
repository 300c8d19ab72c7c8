"""Model text in views and terminals: shown as text, never as markup, and nothing in it moves, colours or hides."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

_PUNCTUATION = re.compile(r"[!-/:-@\[-`{-~]")


# Prefect's page decodes these references in Markdown and shows others as they stand; what is left takes a backslash.
_NAMED = {"<": "&lt;", ">": "&gt;", "&": "&amp;", '"': "&quot;", "'": "&#39;"}


# Markdown renderers make links of bare addresses, and some look for them when what was escaped is plain again. A
# comment in the middle parts an address for them; a person neither sees nor copies it.
_IN_ADDRESSES = re.compile(r"(?<=@)|(?<=:)(?=/)|(?<=www)(?=\.)", re.IGNORECASE)
_APART = "<!-- -->"


def escape_markdown(text: str, *, limit: int = 2000) -> str:
    """Text that a Markdown renderer shows letter by letter, on one line, clipped to `limit` characters.

    Every ASCII punctuation mark is escaped, so neither Markdown nor HTML finds its syntax, and no address becomes a
    link; characters that control, hide or turn text round are written out. Inside an HTML element use `escape_html`.
    """
    return without_links(
        printable(clip(text, limit)),
        lambda part: _PUNCTUATION.sub(lambda m: _NAMED.get(m.group(), f"\\{m.group()}"), part),
    )


def escape_html(text: str, *, limit: int = 2000) -> str:
    """The same inside an HTML element of Markdown, such as `<summary>`, where a backslash would be shown."""
    return without_links(
        printable(clip(text, limit)),
        lambda part: _PUNCTUATION.sub(lambda m: f"&#{ord(m.group())};", part),
    )


def without_links(text: str, escape: Callable[[str], str]) -> str:
    """Escaped text in which no web or mail address is whole."""
    return _APART.join(map(escape, _IN_ADDRESSES.split(text)))


def clip(text: str, limit: int = 60) -> str:
    """Text on one line, cut to `limit` characters."""
    one_line = " ".join(text.split())
    return one_line if len(one_line) <= limit else one_line[: limit - 1] + "…"


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
