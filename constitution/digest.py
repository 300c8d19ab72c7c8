"""Texts before their digests are taken: normalised, so that one meaning has one digest."""

from __future__ import annotations

import unicodedata


def one_line(text: str) -> str:
    """A principle's text: NFC, every run of white space one space. How a file wraps it leaves no trace."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def tidy_block(text: str) -> str:
    """An exemplar's text: NFC, outer white space and line-end spaces off; its line breaks stay."""
    lines = unicodedata.normalize("NFC", text).replace("\r\n", "\n").split("\n")
    return "\n".join(line.rstrip() for line in lines).strip()
