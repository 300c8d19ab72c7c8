"""Calls to token ids: the renderer of conversations, and the tokens that mean an option."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from common.chat import renderer_of
from judges.records import Call

_QUESTION = ({"role": "user", "content": "?"},)


class CallEncoder:
    """Turns calls into token ids with a Hugging Face tokenizer, with or without a chat template. Thread-safe.

    Everything in a call is data: a control token that it spells arrives as characters and can neither close a turn
    nor open one.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.renderer = renderer_of(tokenizer)
        self._forms = lru_cache(maxsize=64)(self._find_forms)

    def encode(self, calls: Sequence[Call]) -> list[list[int]]:
        """Token ids of each call up to the place where the answer begins.

        Raises ChatError for a conversation that the chat template refuses.
        """
        chats = iter(self.renderer.prompts_ids([call.messages for call in calls if call.text is None]))
        texts = iter(self.renderer.text_ids([call.text for call in calls if call.text is not None]))
        return [next(chats) if call.text is None else next(texts) for call in calls]

    def distinct_forms(self, options: Sequence[str]) -> tuple[tuple[int, ...], ...] | None:
        """Per option the single tokens that read as it: as the template continues, with and without a space.

        None when an option has no such token, when the template continues with several, or when two options share
        one: then options are scored whole.
        """
        return self._forms(tuple(options))

    def continuation(self, option: str, *, plain: bool) -> list[int]:
        """Token ids of `option` as the template continues its prompts; after plain text it begins with a space."""
        if plain:
            return self.renderer.tokens.following(self.renderer.tokens.escape(f" {option}"))
        return list(self.renderer.continuations(_QUESTION, [option])[0][0])

    def is_plain(self, call: Call) -> bool:
        """Whether the call is a text to be completed rather than a conversation."""
        return call.text is not None

    def _find_forms(self, options: tuple[str, ...]) -> tuple[tuple[int, ...], ...] | None:
        spellings = self.renderer.continuations(_QUESTION, options)
        if any(len(found[0]) != 1 for found in spellings):
            return None
        forms = tuple(tuple(ids[0] for ids in found if len(ids) == 1) for found in spellings)
        flat = [i for form in forms for i in form]
        return forms if len(set(flat)) == len(flat) else None
