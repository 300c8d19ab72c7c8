"""Conversations to token ids and back, the same way wherever a model reads or writes them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from common.chat.renderer import ChatRenderer
from common.chat.template import (
    FROZEN_DATE,
    ChatError,
    Conversation,
    Message,
    Thinking,
    merge_system,
    naming,
    transcript_template,
)
from common.chat.traits import Traits, folder_stops

__all__ = [
    "FROZEN_DATE",
    "ChatError",
    "ChatRenderer",
    "Conversation",
    "Message",
    "Thinking",
    "Traits",
    "decode_response",
    "encode_conversation",
    "encode_prompt",
    "encode_response",
    "folder_stops",
    "merge_system",
    "naming",
    "renderer_of",
    "stop_token_ids",
    "transcript_template",
]


def renderer_of(tokenizer: Any) -> ChatRenderer:
    """The tokenizer's renderer with standard settings, made once for its template, vocabulary and end token."""
    return _made(
        tokenizer, str(tokenizer.chat_template), len(tokenizer), tokenizer.eos_token, tokenizer.bos_token
    )


@lru_cache(maxsize=8)
def _made(tokenizer: Any, *determines: object) -> ChatRenderer:
    return ChatRenderer(tokenizer)


def encode_prompt(tokenizer: Any, messages: Conversation) -> list[int]:
    """`ChatRenderer.prompt_ids` with standard settings."""
    return renderer_of(tokenizer).prompt_ids(messages)


def encode_response(tokenizer: Any, text: str, *, end: bool = True) -> list[int]:
    """`ChatRenderer.answer_ids` after a question of one word, for callers that have no prompt."""
    return renderer_of(tokenizer).answer_ids([{"role": "user", "content": "?"}], text, end=end)


def encode_conversation(tokenizer: Any, messages: Conversation) -> tuple[list[int], list[bool]]:
    """`ChatRenderer.conversation` with standard settings."""
    return renderer_of(tokenizer).conversation(messages)


def decode_response(tokenizer: Any, ids: Sequence[int]) -> str:
    """`ChatRenderer.decode` with standard settings."""
    return renderer_of(tokenizer).decode(ids)


def stop_token_ids(tokenizer: Any) -> tuple[int, ...]:
    """`ChatRenderer.stop_ids` with standard settings."""
    return renderer_of(tokenizer).stop_ids
