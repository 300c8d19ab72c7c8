"""Model text in views and terminals: shown as text, never as markup, and nothing in it moves, colours or hides."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

# Markdown renderers make links of bare addresses, and some look for them when what was escaped is plain again. A
# comment in the middle parts an address for them; a person neither sees nor copies it. None links name@1.2.0.
_IN_ADDRESSES = re.compile(r"(?<=@)(?!\d+\.\d+\.\d+(?![\w.-]))|(?<=:)(?=/)|(?<=www)(?=\.)", re.IGNORECASE)
_APART = "<!-- -->"
_PUNCTUATION = re.compile(r"[!-/:-@\[-`{-~]")
_SYNTAX = re.compile(r"[^\w\s,.;:?!'()%+=/\u0080-\U0010ffff-]|_|(?<=[:/])/|/(?=/)")


# Prefect's page decodes these references in Markdown and shows others as they stand; what is left takes a backslash.
_NAMED = {"<": "&lt;", ">": "&gt;", "&": "&amp;", '"': "&quot;", "'": "&#39;"}


def escape_markdown(text: str, *, limit: int = 2000) -> str:
    """Text that a Markdown renderer shows letter by letter, on one line, clipped to `limit` characters.

    Every ASCII punctuation mark is escaped, so neither Markdown nor HTML finds its syntax; characters that control,
    hide or turn text round are written out; addresses do not become links. Inside an HTML element use `escape_html`.
    """
    return unlinked(
        printable(clip(text, limit)),
        lambda part: _PUNCTUATION.sub(lambda m: _NAMED.get(m.group(), f"\\{m.group()}"), part),
    )


def escape_html(text: str, *, limit: int = 2000) -> str:
    """The same inside an HTML element of Markdown, such as `<summary>`, where a backslash would be shown."""
    return unlinked(
        printable(clip(text, limit)),
        lambda part: _PUNCTUATION.sub(lambda m: f"&#{ord(m.group())};", part),
    )


def unlinked(text: str, escape: Callable[[str], str]) -> str:
    """Escaped text in which no renderer finds a web or mail address: GitHub's Markdown, which both of Prefect's pages
    speak, looks for them in what is left after parsing."""
    return _APART.join(map(escape, _IN_ADDRESSES.split(text)))


def plain(text: str, *, limit: int = 160) -> str:
    """Text for a place that one page takes for Markdown and another shows letter by letter, on one line.

    No escape reads well in both, so a mark that Markdown or HTML knows becomes a space, and a dot before a letter,
    which could make an address, one that looks the same. Long words are parted: such a place may not wrap them.
    """
    words = " ".join(_SYNTAX.sub(" ", printable(clip(text, limit))).split())
    words = re.sub(r"(\S{40})(?=\S)", r"\1 ", words)
    return re.sub(r"\.(?=[^\W\d])", "\u2024", words)


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
