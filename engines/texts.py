"""Completions as texts: without the thoughts before them, and what came of each in tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from common.chat import renderer_of
from common.chat.thoughts import Split, marks_of, split_thought
from engines.protocol import Answer, Completion


@dataclass(frozen=True, kw_only=True)
class Text:
    """A sampled text without the thought before it, and its cost in tokens.

    `finish` is stop, length (cut off; also a thought that did not end, whatever ended the turn), prompt_too_long
    (nothing was drawn) or refused (an API's filter answered).
    """

    text: str
    finish: str
    thought: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Reader:
    """Reads completions of one tokenizer's model. A thought ends at the id of its mark, which decoding may drop, or
    where the text spells it."""

    def __init__(self, tokenizer: Any) -> None:
        self._renderer = renderer_of(tokenizer)
        added = {str(token): number for number, token in tokenizer.added_tokens_decoder.items()}
        marks = marks_of(self._renderer.template.source, list(added))
        self._opening = added.get(marks.opening) if marks else None
        self._closing = added.get(marks.closing) if marks else None

    def text(self, prompt: Sequence[int], completion: Completion) -> Text:
        """The text of a completion of `prompt`."""
        found = self._split(list(completion.token_ids), completion.text)
        return Text(
            text=found.answer,
            finish=completion.finish_reason if found.ended else "length",
            thought=found.thought,
            prompt_tokens=len(prompt),
            completion_tokens=len(completion.token_ids),
        )

    def _split(self, ids: list[int], text: str) -> Split:
        if self._closing in ids:
            at = len(ids) - 1 - ids[::-1].index(self._closing)
            thought = [i for i in ids[:at] if i != self._opening]
            return Split(
                thought=self._renderer.decode(thought).strip(),
                answer=self._renderer.decode(ids[at + 1 :]).lstrip(),
            )
        if self._opening is not None and self._opening in ids[:2]:
            thought = [i for i in ids if i != self._opening]
            return Split(thought=self._renderer.decode(thought).strip(), answer="", ended=False)
        return split_thought(text)


def written_text(answer: Answer) -> Text:
    """The text of what an API wrote: an answer that is ok, truncated or refused."""
    too_long = (answer.cause or "").startswith("context")
    cut = "prompt_too_long" if too_long else "length"
    found = split_thought(answer.text or "")
    finish = {"ok": "stop", "refused": "refused"}.get(answer.status, cut)
    return Text(
        text=found.answer,
        finish=finish if found.ended else "length",
        thought=answer.thought or found.thought,
        prompt_tokens=answer.prompt_tokens,
        completion_tokens=answer.completion_tokens,
    )
