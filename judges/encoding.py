"""Token ids of a call, with everything that others wrote kept plain text.

A chat template is rendered once per sequence of roles with placeholders for the contents; its own pieces are
tokenised with special tokens, contents without. So `<|end|>` typed by a user or written by a model arrives as
characters and can neither close a turn nor open one.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

from judges.records import Call, Message

PLACEHOLDER = "CHARTERCONTENT{}ENDCONTENT"
_PLACEHOLDERS = re.compile(r"CHARTERCONTENT(\d+)ENDCONTENT")


class CallEncoder:
    """Turns calls into token ids with a Hugging Face tokenizer, with or without a chat template."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        # Hugging Face's fast tokenizers keep settings of a call in themselves and fail when two threads meet.
        self._lock = threading.RLock()
        # Runs of spaces are added tokens in some vocabularies, and as harmless as any other text there.
        added = {i: str(t) for i, t in tokenizer.added_tokens_decoder.items() if str(t).strip()}
        self._control_ids = frozenset(added) | frozenset(tokenizer.all_special_ids)
        texts = sorted({*added.values(), *tokenizer.all_special_tokens}, key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, texts))) if texts else None
        self._frame = lru_cache(maxsize=64)(self._render_frame)
        self._forms = lru_cache(maxsize=64)(self._find_forms)
        self._leading = self._plain_leading()

    def encode(self, calls: Sequence[Call]) -> list[list[int]]:
        """Token ids of each call up to the place where the answer begins. Thread-safe."""
        with self._lock:
            return self._encode(calls)

    def _encode(self, calls: Sequence[Call]) -> list[list[int]]:
        frames = [self._frame_of(call) for call in calls]
        contents = list(dict.fromkeys(part for frame in frames for part in frame if isinstance(part, str)))
        ids = dict(zip(contents, self._contents(contents), strict=True))
        return [
            [i for part in frame for i in (ids[part] if isinstance(part, str) else part)] for frame in frames
        ]

    def distinct_forms(self, options: Sequence[str]) -> tuple[tuple[int, ...], ...] | None:
        """Per option the single tokens that read as it, with and without a leading space.

        None when an option has no such token or shares one with another: then options are scored whole.
        """
        with self._lock:
            return self._forms(tuple(options))

    def continuation(self, option: str, *, plain: bool) -> list[int]:
        """Token ids of `option` as a continuation; after plain text it begins with a space."""
        with self._lock:
            return self._contents([f" {option}" if plain else option])[0]

    def is_plain(self, call: Call) -> bool:
        """Whether the call is rendered as plain text: a completion, or no chat template to be had."""
        return call.text is not None or not self._tokenizer.chat_template

    def _frame_of(self, call: Call) -> list[str | tuple[int, ...]]:
        """The call as template pieces (ids) and contents (text still to be encoded)."""
        if call.text is not None:
            return [self._leading, call.text]
        if not self._tokenizer.chat_template:
            return [self._leading, plain_transcript(call.messages)]
        messages = call.messages
        frame = self._frame(tuple(m["role"] for m in messages))
        if frame is None:  # the template has no place for a system message
            messages = merge_system(messages)
            frame = self._frame(tuple(m["role"] for m in messages))
            if frame is None:
                raise ValueError("the chat template refuses " + ", ".join(m["role"] for m in messages))
        return [messages[part]["content"] if isinstance(part, int) else part for part in frame]

    def _render_frame(self, roles: tuple[str, ...]) -> list[int | tuple[int, ...]] | None:
        """Ids of the template's own pieces, and the number of the message whose content stands between."""
        messages = [{"role": r, "content": PLACEHOLDER.format(i)} for i, r in enumerate(roles)]
        try:
            text = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except Exception:  # templates raise what they like
            return None
        frame: list[int | tuple[int, ...]] = []
        for n, part in enumerate(_PLACEHOLDERS.split(text)):
            if n % 2:
                frame.append(int(part))
            elif part:
                frame.append(tuple(self._tokenizer(part, add_special_tokens=False)["input_ids"]))
        missing = set(range(len(roles))) - {part for part in frame if isinstance(part, int)}
        return None if missing else frame

    def _find_forms(self, options: tuple[str, ...]) -> tuple[tuple[int, ...], ...] | None:
        forms: list[tuple[int, ...]] = []
        for option in options:
            spellings = self._contents([option, f" {option}"])
            forms.append(tuple(dict.fromkeys(ids[0] for ids in spellings if len(ids) == 1)))
        flat = [i for form in forms for i in form]
        return tuple(forms) if all(forms) and len(set(flat)) == len(flat) else None

    def _contents(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of texts in which no control token is read, whatever they spell."""
        if not texts:
            return []
        texts = [text.encode("utf-8", "replace").decode() for text in texts]  # lone surrogates
        # Not verbose: a text that is too long is the judge's to report.
        encoded = self._tokenizer(
            list(texts), add_special_tokens=False, split_special_tokens=True, verbose=False
        )["input_ids"]
        return [
            ids if self._control_ids.isdisjoint(ids) else self._cut(text)
            for text, ids in zip(texts, encoded, strict=True)
        ]

    def _cut(self, text: str) -> list[int]:
        """Encodes `text` in pieces that cut through every control token it spells.

        `split_special_tokens` covers neither added tokens that are not marked special nor vocabularies that
        hold the control token's text as an ordinary piece.
        """
        assert self._control is not None
        cuts = sorted({0, len(text), *(m.start() + 1 for m in self._control.finditer(text))})
        pieces = [text[i:j] for i, j in pairwise(cuts)]
        for candidate in (pieces, list(text)):
            ids = self._concatenated(candidate)
            if self._control_ids.isdisjoint(ids):
                return ids
        # A tokenizer that normalises text into a control token even character by character: drop those ids.
        return [i for i in self._concatenated(list(text)) if i not in self._control_ids]

    def _concatenated(self, pieces: Iterable[str]) -> list[int]:
        encoded = self._tokenizer(list(pieces), add_special_tokens=False, split_special_tokens=True)[
            "input_ids"
        ]
        return [i for ids in encoded for i in ids]

    def _plain_leading(self) -> tuple[int, ...]:
        """The begin token, where the tokenizer puts one before plain text."""
        begin = self._tokenizer.bos_token_id
        return (begin,) if begin is not None and begin in self._tokenizer("")["input_ids"][:1] else ()


def plain_transcript(messages: Sequence[Message]) -> str:
    """A conversation for a model without a chat template, ending where its answer begins."""
    names = {"user": "\n\nHuman: ", "assistant": "\n\nAssistant: ", "system": ""}
    return "".join(names[m["role"]] + m["content"] for m in messages) + "\n\nAssistant:"


def merge_system(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The same messages with a leading system message moved to the head of the first user message."""
    if len(messages) < 2 or messages[0]["role"] != "system":
        return tuple(messages)
    first = {"role": "user", "content": f"{messages[0]['content']}\n\n{messages[1]['content']}"}
    return (first, *messages[2:])
