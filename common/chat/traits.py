"""What is found out once about a template and a model folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from common.chat.thoughts import MARKS, open_thought


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What rendering two turns with marker texts shows of a template.

    `header` is text that the generation prompt leaves out although an answer always follows it; it is added to every
    prompt (a closed thought, a channel). `lead` is white space between prompt and answer, `end` the text that ends
    the assistant's turn up to and including its last token, `end_id` that token (None where nothing ends it).
    """

    header: str
    lead: str
    end: str
    end_id: int | None
    merges_system: bool
    writes_date: bool
    opens_thought: bool
    has_template: bool


def closing_of(prompt: str) -> str:
    """What closes the thought that a prompt ends with, as Qwen3's own template closes it; "" where none is open."""
    opening = open_thought(prompt)
    if opening is None:
        return ""
    mark, space = opening
    return ("" if space else "\n") + "\n" + MARKS[mark] + "\n\n"


def folder_stops(folder: str) -> tuple[int, ...]:
    """The end tokens that a model folder's generation_config.json lists; none where there is no such file."""
    try:
        found = json.loads((Path(folder) / "generation_config.json").read_text(encoding="utf-8"))
        ends = found.get("eos_token_id")
    except (OSError, ValueError, AttributeError):
        return ()
    ends = ends if isinstance(ends, list) else [ends]
    return tuple(i for i in ends if isinstance(i, int))
