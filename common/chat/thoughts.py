"""Thoughts: what a model writes between marks before it answers. Found, opened, closed, and split from answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

MARKS = {
    "<think>": "</think>",
    "<thinking>": "</thinking>",
    "<thought>": "</thought>",
    "<seed:think>": "</seed:think>",
    "[THINK]": "[/THINK]",
    "<|START_THINKING|>": "<|END_THINKING|>",
    "◁think▷": "◁/think▷",
}
"""What opens a thought, and what closes it, in the templates of models that think."""
_OPENING = "|".join(map(re.escape, MARKS))
_OPEN_AT_END = re.compile(rf"({_OPENING})(\s*)\Z")
_LEADING = re.compile(rf"\s*({_OPENING})")
_CLOSINGS = re.compile("|".join(map(re.escape, MARKS.values())))


@dataclass(frozen=True, kw_only=True)
class Marks:
    """The marks of one model, and what follows a closed thought."""

    opening: str
    closing: str

    @property
    def opened(self) -> str:
        """What begins a thought."""
        return f"{self.opening}\n"

    def closed(self, thought: str) -> str:
        """What stands between an opened thought and the answer."""
        return f"{thought.strip()}\n{self.closing}\n\n"


@dataclass(frozen=True, kw_only=True)
class Split:
    """An answer without its thought. `ended` is false where the text ran out before the thought was closed."""

    thought: str
    answer: str
    ended: bool = True


def marks_of(template: str, added: Sequence[str]) -> Marks | None:
    """The marks that a chat template writes or a vocabulary has as tokens of their own; None for a model without."""
    for opening, closing in MARKS.items():
        if closing in template or (opening in added and closing in added):
            return Marks(opening=opening, closing=closing)
    return None


def open_thought(prompt: str) -> tuple[str, str] | None:
    """The mark with which a prompt leaves a thought open, and the white space behind it; None where none is open."""
    found = _OPEN_AT_END.search(prompt)
    return (found.group(1), found.group(2)) if found else None


def split_thought(text: str, *, opened: bool = False) -> Split:
    """The thought at the beginning of a text, by its marks, and what follows it.

    `opened` says that the prompt had opened one, so that the text begins inside it. A text that closes a thought which
    it never opened began inside one too. Whatever follows the last closing mark is the answer.
    """
    leading = _LEADING.match(text)
    closings = list(_CLOSINGS.finditer(text))
    if leading is None and not opened and not closings:
        return Split(thought="", answer=text)
    inside = text[leading.end() :] if leading else text
    if not closings:
        return Split(thought=inside.strip(), answer="", ended=False)
    # What a thought quotes of marks stays thought; only the last one can end it.
    end = closings[-1]
    thought = text[leading.end() if leading else 0 : end.start()]
    return Split(thought=thought.strip(), answer=text[end.end() :].lstrip())
