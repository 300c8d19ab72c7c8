"""Conversations to token ids, the same way in training and in generation.

The text inside a message is data: a string in it that looks like a special token ("<|end|>") is encoded as
ordinary text and never ends a turn. A tokenizer without a chat template falls back to a plain
"Human: … Assistant: …" transcript. A response is tokenized by itself and appended to its encoded prompt, so
that training sees exactly the boundary that sampling produces.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from training.errors import TrainingError


@dataclass(frozen=True, kw_only=True)
class _Specials:
    """What is worked out once per tokenizer and vocabulary."""

    key: tuple[str | None, int]
    tokens: tuple[str, ...]
    pattern: re.Pattern[str]


Message = Mapping[str, str]
Conversation = Sequence[Message]

_SPEAKERS = {"user": "Human", "assistant": "Assistant"}
# Private-use characters stand in for special tokens found inside content while the template is rendered.
_OPEN, _CLOSE = "\U000f0000", "\U000f0001"
_PLACEHOLDER = re.compile(f"{_OPEN}([0-9]+){_CLOSE}")
_MARKER = "\U000f0002"
_endings: weakref.WeakKeyDictionary[Any, tuple[str | None, str]] = weakref.WeakKeyDictionary()
_specials: weakref.WeakKeyDictionary[Any, _Specials] = weakref.WeakKeyDictionary()


def encode_prompt(tokenizer: Any, messages: Conversation) -> list[int]:
    """Token ids of a conversation up to and including the header of the assistant's next turn."""
    return _tokenize(tokenizer, _render(tokenizer, messages, generation_prompt=True))


def encode_response(tokenizer: Any, text: str, *, end: bool = True) -> list[int]:
    """Token ids of an assistant turn: its text, and its end-of-turn token unless `end` is false.

    `encode_prompt(m) + encode_response(r)` is the whole conversation.
    """
    lead = "" if tokenizer.chat_template else " "
    suffix = _ending(tokenizer) if end else ""
    return _tokenize(tokenizer, lead + _escape(tokenizer, text) + suffix)


def encode_conversation(tokenizer: Any, messages: Conversation) -> tuple[list[int], list[bool]]:
    """Token ids of a whole conversation, and for each token whether an assistant wrote it.

    An assistant's tokens are the content and the end-of-turn token, not the header.

    Raises TrainingError when the template renders a turn differently once another turn follows it (then only
    the last turn can be trained on).
    """
    ids: list[int] = []
    mask: list[bool] = []
    done = ""
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = _render(tokenizer, messages[:index], generation_prompt=True)
        after = _render(tokenizer, messages[: index + 1], generation_prompt=False)
        if not before.startswith(done) or not after.startswith(before):
            raise TrainingError(
                "the chat template renders earlier turns differently once another turn follows; "
                "set train_on: last"
            )
        ending = _ending(tokenizer)
        turn = after[len(before) :]
        if ending in turn:
            turn = turn[: turn.rindex(ending) + len(ending)]
        else:
            turn += ending
        header, body = _tokenize(tokenizer, before[len(done) :]), _tokenize(tokenizer, turn)
        ids += header + body
        mask += [False] * len(header) + [True] * len(body)
        done = before + turn
    return ids, mask


def decode_response(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of generated ids, without special tokens; inverse of `encode_response`."""
    text = tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text if tokenizer.chat_template else text.removeprefix(" ")


def stop_token_ids(tokenizer: Any) -> tuple[int, ...]:
    """The ids that end an assistant turn: the template's end-of-turn token and the end-of-sequence token."""
    stops = set(_tokenize(tokenizer, _ending(tokenizer))[:1])
    if tokenizer.eos_token_id is not None:
        stops.add(tokenizer.eos_token_id)
    return tuple(sorted(stops))


def _render(tokenizer: Any, messages: Conversation, *, generation_prompt: bool) -> str:
    escaped = [{**message, "content": _escape(tokenizer, message["content"])} for message in messages]
    if not tokenizer.chat_template:
        return _transcript(tokenizer, escaped, generation_prompt=generation_prompt)
    try:
        return tokenizer.apply_chat_template(escaped, tokenize=False, add_generation_prompt=generation_prompt)
    except Exception as error:  # jinja2 errors and whatever a template raises itself
        roles = ", ".join(message["role"] for message in messages)
        raise TrainingError(f"the chat template refused the turns ({roles}): {error}") from error


def _transcript(tokenizer: Any, messages: Sequence[Message], *, generation_prompt: bool) -> str:
    adds_bos = getattr(tokenizer, "add_bos_token", False)
    # Encoders such as BERT read a sequence's class at a first token of its own.
    bos = tokenizer.cls_token or (tokenizer.bos_token if adds_bos else None) or ""
    parts: list[str] = []
    for message in messages:
        content = message["content"]
        if message["role"] == "system":
            parts.append(content)
        else:
            end = _ending(tokenizer) if message["role"] == "assistant" else ""
            parts.append(f"{_SPEAKERS[message['role']]}: {content}{end}")
    if generation_prompt:
        parts.append("Assistant:")
    return bos + "\n\n".join(parts)


def _ending(tokenizer: Any) -> str:
    """The text that ends an assistant turn, up to and including its first special token."""
    key = tokenizer.chat_template
    cached = _endings.get(tokenizer)
    if cached is not None and cached[0] == key:
        return cached[1]
    ending = tokenizer.eos_token or tokenizer.sep_token or ""
    if tokenizer.chat_template:
        turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _MARKER}]
        tail = _render(tokenizer, turns, generation_prompt=False).rpartition(_MARKER)[2]
        found = _special_tokens(tokenizer).pattern.search(tail)
        if found:
            ending = tail[: found.end()]
    if not ending:
        raise TrainingError(
            "the tokenizer has neither an end-of-sequence token nor a template that ends a turn"
        )
    _endings[tokenizer] = (key, ending)
    return ending


def _special_tokens(tokenizer: Any) -> _Specials:
    key = (tokenizer.chat_template, len(tokenizer))
    cached = _specials.get(tokenizer)
    if cached is None or cached.key != key:
        # Not only the named ones: a template's role markers are often special without having a name.
        added = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
        tokens = tuple(sorted({*added, *tokenizer.all_special_tokens}, key=lambda t: (-len(t), t)))
        pattern = re.compile("|".join(re.escape(token) for token in tokens) or "(?!)")
        cached = _specials[tokenizer] = _Specials(key=key, tokens=tokens, pattern=pattern)
    return cached


def _escape(tokenizer: Any, text: str) -> str:
    specials = _special_tokens(tokenizer)
    return specials.pattern.sub(lambda m: f"{_OPEN}{specials.tokens.index(m.group())}{_CLOSE}", text)


def _tokenize(tokenizer: Any, text: str) -> list[int]:
    if not text:
        return []
    if _OPEN not in text:
        return tokenizer(text, add_special_tokens=False)["input_ids"]
    specials = _special_tokens(tokenizer)

    def restore(match: re.Match[str]) -> str:
        index = int(match.group(1))
        return specials.tokens[index] if index < len(specials.tokens) else match.group()

    ids: list[int] = []
    start = 0
    for found in [*specials.pattern.finditer(text), None]:
        stop = found.start() if found else len(text)
        plain = _PLACEHOLDER.sub(restore, text[start:stop])
        if plain:
            ids += tokenizer(plain, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        if found:
            ids.append(tokenizer.convert_tokens_to_ids(found.group()))
            start = found.end()
    return ids
