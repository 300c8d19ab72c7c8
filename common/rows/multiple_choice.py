r"""Pairs as multiple choice: a prompt that holds a conversation and bracketed options, and the option letters.

`{"prompt", "corrects", "incorrects"}`, with `text_correct` and `text_incorrect` where the options' texts are given too
(the harmlessness comparisons of Bai et al. 2022, arXiv 2212.08073).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from common.rows.compare import Content, among, asked
from common.rows.source import fail, kind
from common.rows.turns import Turns, joined, text

_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant): ?")
_SPOKEN = re.compile(r"(?:^|\n)\s*(Human|H|User|Assistant|A|AI): ")
_OPTION = re.compile(r"(?:^|\n)\s*\(([A-Z])\)[ \t]*")
_USER = ("Human", "H", "User")


def multiple_choice(row: Mapping[str, Any], place: str) -> Content:
    """The better and the worse option, as answers to the quoted conversation."""
    prompt = text(row["prompt"], "prompt", place)
    marks = list(_OPTION.finditer(prompt))
    if len(marks) < 2:
        why = "prompt holds no options such as (A) … at the beginning of lines"
        return Content(prompt=_quoted(prompt), why_no_pair=why)
    ends = [m.start() for m in marks[1:]] + [len(prompt)]
    options = {m.group(1): prompt[m.end() : end] for m, end in zip(marks, ends, strict=True)}
    last = marks[-1].group(1)
    # What follows the last option belongs to the prompt's frame: "\n\nAssistant: The answer is:".
    options[last] = _TURN.split(options[last])[0]
    answers = []
    for name, given in (("corrects", "text_correct"), ("incorrects", "text_incorrect")):
        letters = row[name]
        letter = str(letters[0]).strip(" ()") if isinstance(letters, list) and letters else None
        if letter is None:
            fail(place, name, f"expected a list with an option's letter, got {kind(letters)}")
        if letter not in options:
            return Content(prompt=_quoted(prompt), why_no_pair=f"{name} names no option of the prompt")
        own = row.get(given)
        answers.append(text(own, given, place) if own else options[letter].strip())
    turns = _quoted(prompt[: marks[0].start()])
    return among(turns, [(answers[0], 1.0), (answers[1], 0.0)])


def _quoted(frame: str) -> Turns:
    """The conversation inside a multiple-choice prompt, up to its last human turn; all of it if there is none."""
    framed = frame.startswith(("\n\nHuman:", "Human:")) and frame.count("Human:") < 2
    inner = _TURN.split(frame)[-1] if framed else frame
    parts = _SPOKEN.split(inner)
    spoken = zip(parts[1::2], parts[2::2], strict=True)
    turns = [("user" if name in _USER else "assistant", content.strip()) for name, content in spoken]
    while turns and (turns[0][0] != "user" or _is_frame(turns[0][1])):
        turns.pop(0)
    turns = [(turn["role"], turn["content"]) for turn in asked(joined(turns))]
    if not turns:
        return [{"role": "user", "content": inner.strip()}]
    role, content = turns[-1]
    # The question about the options stands in the paragraph after the last turn.
    turns[-1] = (role, content.split("\n\n")[0].strip() or content)
    return joined(turns)


def _is_frame(content: str) -> bool:
    return content.rstrip().endswith(":") and "conversation" in content
