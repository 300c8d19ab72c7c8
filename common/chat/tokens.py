"""Text to token ids, with the control tokens that a text only spells kept plain text."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

# Private-use characters. Inside rendered text, `_OPEN 12 _CLOSE` stands for control text 12 that a message spells,
# and inside the second tokenizer `_NAME 7 _CLOSE` is the name of control token 7.
_OPEN, _CLOSE, _NAME = "\U000f0000", "\U000f0001", "\U000f0002"
_PLACEHOLDER = re.compile(f"{_OPEN}([0-9]+){_CLOSE}")
# What gives away a control token that is not marked special. Names of HTML elements are vocabulary (Gemma has them).
_BRACKETED = re.compile(r"[<\[|｜].*[>\]|｜]", re.DOTALL)
_HTML = re.compile(
    r"</?(?:a|b|i|u|s|p|em|br|hr|h[1-6]|ul|ol|li|dl|dt|dd|td|th|tr|table|thead|tbody|tfoot|caption|code|pre|kbd|sub|sup"
    r"|small|strong|strike|mark|blockquote|div|span|img|del|ins|cite|q|tt|center|font)/?>",
    re.IGNORECASE,
)
# Text before which a continuation can be encoded; the first that does not run together with it is taken.
_ANCHORS = ("\n", ".", "a", "0")


class Tokens:
    """Encodes rendered conversations with a Hugging Face tokenizer. Thread-safe.

    A control token is one marked special, one that has a name (`eos_token`), one that the chat template writes, and
    any other added token in brackets (`<think>`, `[TOOL_CALLS]`) that is no HTML element.
    """

    def __init__(self, tokenizer: Any, template: str) -> None:
        self._tokenizer = tokenizer
        # Hugging Face's fast tokenizers keep settings of a call in themselves and fail when two threads meet.
        self._lock = threading.RLock()
        added = {str(t): i for i, t in tokenizer.added_tokens_decoder.items() if str(t).strip()}
        special = {str(t) for t in tokenizer.added_tokens_decoder.values() if t.special}
        special = {t for t in special | set(tokenizer.all_special_tokens) if t.strip()}
        plain = {
            t
            for t in added
            if t in template or (_BRACKETED.fullmatch(t) is not None and not _HTML.fullmatch(t))
        }
        ids = {t: added.get(t, tokenizer.convert_tokens_to_ids(t)) for t in sorted(special | plain)}
        self._texts = sorted(ids, key=lambda t: (-len(t), t))
        self._ids = ids
        self.control_ids = frozenset(ids.values())
        self.control = _any_of(self._texts)
        self._special = _any_of([t for t in self._texts if t in special])
        self._second: tuple[Any, dict[int, int]] | None = None

    def escape(self, text: str, role: str = "user") -> str:
        """The text with a placeholder for every control token that it spells; lone surrogates become "?".

        In an assistant's turn only special tokens are replaced: others (`<think>`) a template has to find there.
        """
        text = text.encode("utf-8", "replace").decode()
        pattern = self._special if role == "assistant" else self.control
        numbers = {t: n for n, t in enumerate(self._texts)}
        parts = [pattern.sub(lambda m: f"{_OPEN}{numbers[m.group()]}{_CLOSE}", p) for p in text.split(_OPEN)]
        return f"{_OPEN}{len(numbers)}{_CLOSE}".join(parts)

    def unescape(self, text: str) -> str:
        """The text that was escaped."""
        return _PLACEHOLDER.sub(lambda m: [*self._texts, _OPEN][int(m.group(1))], text)

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of rendered texts: the tokenizer's own, wherever no message spells a control token."""
        if not texts:
            return []
        with self._lock:
            # Not verbose: what is too long is the caller's to report.
            plain = self._encode([t for t in texts if _OPEN not in t])
            found = iter(plain)
            return [self._hostile(t) if _OPEN in t else next(found) for t in texts]

    def following(self, text: str) -> list[int]:
        """Token ids of a text in the middle of another, where nothing runs together with what is before it."""
        return _following(text, self.ids)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids that follow others, special tokens left out."""
        with self._lock:
            before, lead = self._anchor
            text = self._text([*before, *ids])
            return text[len(lead) :] if text.startswith(lead) else self._text(ids)

    def loses_spaces(self) -> bool:
        """Whether encoding and decoding "a b" gives another text: such a tokenizer was put together wrongly."""
        return self.decode(self.following(" a b c")).split() != ["a", "b", "c"]

    @cached_property
    def _anchor(self) -> tuple[list[int], str]:
        ids = self._encode(["a"])[0]
        return ids, self._text(ids)

    def leading_ids(self) -> list[int]:
        """What the tokenizer puts before a text: the token that begins a sequence, where there is one."""
        with self._lock:
            whole = self._tokenizer("a")["input_ids"]
            plain = self._tokenizer("a", add_special_tokens=False)["input_ids"]
        at = next((n for n in range(len(whole)) if whole[n : n + len(plain)] == plain), 0)
        return whole[:at]

    def _text(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        return self._tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]

    def _hostile(self, text: str) -> list[int]:
        """Ids of a text with placeholders: control tokens are those of the template alone."""
        wanted = [self._ids[m.group()] for m in self.control.finditer(text)]
        if getattr(self._tokenizer, "backend_tokenizer", None) is not None:
            second, own_id = self._renamed()
            named = self.control.sub(lambda m: f"{_NAME}{self._ids[m.group()]}{_CLOSE}", text)
            ids = second.encode(self.unescape(named), add_special_tokens=False).ids
            ids = [own_id.get(i, i) for i in ids]
            if [i for i in ids if i in self.control_ids] == wanted:
                return ids
        return self._cut(text)

    def _renamed(self) -> tuple[Any, dict[int, int]]:
        """The same tokenizer with private names for its control tokens, and the ids that its added tokens have here."""
        if self._second is None:
            from tokenizers import Tokenizer

            state = json.loads(self._tokenizer.backend_tokenizer.to_str())
            state["post_processor"] = state["truncation"] = state["padding"] = None
            true_ids = {}
            for token in state["added_tokens"]:
                if token["id"] in self.control_ids:
                    token |= {"content": f"{_NAME}{token['id']}{_CLOSE}", "normalized": False}
                true_ids[token["content"]] = token["id"]
            second = Tokenizer.from_str(json.dumps(state))
            found = {second.token_to_id(name): i for name, i in true_ids.items()}
            self._second = second, {new: i for new, i in found.items() if new is not None}
        return self._second

    def _cut(self, text: str) -> list[int]:
        """Encodes in pieces that cut through every control token that a message spells.

        For tokenizers that hold a control token's text as an ordinary piece, and for those that are not fast.
        """
        ids: list[int] = []
        start, before = 0, ""
        for found in [*self.control.finditer(text), None]:
            piece = self.unescape(text[start : found.start() if found else len(text)])
            cuts = sorted({0, len(piece), *(m.start() + 1 for m in self.control.finditer(piece))})
            for pieces in ([piece[i:j] for i, j in pairwise(cuts)], list(piece)):
                encoded = self._apart(before, pieces)
                if self.control_ids.isdisjoint(encoded):
                    break
            # A tokenizer may turn single characters into a control token: then those are dropped.
            ids += [i for i in encoded if i not in self.control_ids]
            if found:
                before = found.group()
                ids.append(self._ids[before])
                start = found.end()
        return ids

    def _apart(self, before: str, pieces: Sequence[str]) -> list[int]:
        """Ids of pieces that are one text, the first behind the control token `before`."""
        first, *others = pieces or [""]
        ids = self._encode([before + first])[0][1 if before else 0 :] if first else []
        return ids + [i for piece in others for i in _following(piece, self._encode)]


def _following(text: str, encode: Callable[[Sequence[str]], list[list[int]]]) -> list[int]:
    for anchor in _ANCHORS:
        before, whole = encode([anchor, anchor + text])
        if whole[: len(before)] == before:
            return whole[len(before) :]
    return encode([text])[0]


def _any_of(texts: Sequence[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, texts)) or "(?!)")
