"""Conversations to text: a tokenizer's chat template, or one transcript form where it has none."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Literal

from common.errors import DataError

Message = Mapping[str, str]
Conversation = Sequence[Message]
Thinking = Literal["off", "on"]

FROZEN_DATE = datetime.date(2024, 7, 26)
"""What a template that writes today's date writes: the date that Llama 3's templates name where they know none."""

_PROBE = "Qz{}turnzq"
_THOUGHT_END = re.compile(r"</think(?:ing)?>|</seed:think>|\[/THINK\]|<\|END_THINKING\|>")
_TRANSCRIPT = (
    "{{ BOS }}{% for m in messages %}{% if not loop.first %}{{ '\n\n' }}{% endif %}"
    "{% if m['role'] == 'assistant' %}{{ 'Assistant: ' + m['content'] + EOS }}"
    "{% elif m['role'] == 'system' %}{{ m['content'] }}"
    "{% elif m['role'] == 'user' %}{{ 'Human: ' + m['content'] }}"
    "{% else %}{{ m['role'] | capitalize + ': ' + m['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\n\nAssistant:' }}{% endif %}"
)


class ChatError(DataError):
    """A conversation that cannot be turned into tokens without losing text, or a tokenizer that cannot end a turn."""


@contextmanager
def naming(place: str) -> Iterator[None]:
    """Puts the place of a row (`file:line`) before what a ChatError inside says."""
    try:
        yield
    except ChatError as error:
        raise ChatError(f"{place}: {error}") from None


def transcript_template(bos: str, eos: str) -> str:
    """The chat template of a model that has none: `Human: …`, `Assistant: …`, blank lines between turns.

    `bos` begins the text, `eos` ends each of the assistant's turns.
    """

    def literal(text: str) -> str:
        return "'" + json.dumps(text, ensure_ascii=False)[1:-1].replace("'", "\\'") + "'"

    return _TRANSCRIPT.replace("BOS", literal(bos)).replace("EOS", literal(eos))


def merge_system(turns: Conversation) -> tuple[Message, ...]:
    """The same turns with a leading system turn at the head of the first user turn, a blank line between."""
    if not turns or turns[0]["role"] != "system":
        return tuple(turns)
    if len(turns) == 1:
        return ({"role": "user", "content": turns[0]["content"]},)
    if turns[1]["role"] != "user":
        return tuple(turns)
    first = {"role": "user", "content": f"{turns[0]['content']}\n\n{turns[1]['content']}"}
    return (first, *turns[2:])


class ChatTemplate:
    """Renders conversations so that every turn's text is in them, or raises ChatError.

    Each sequence of roles is rendered once with marker texts: a template that refuses or drops a leading system turn
    gets it merged into the first user turn; what else it refuses or drops is an error that names the turn.
    """

    def __init__(self, tokenizer: Any, source: str, *, thinking: Thinking, date: datetime.date) -> None:
        self._tokenizer, self.source, self.date = tokenizer, source, date
        self._settings: dict[str, Any] = {}
        for name in ("enable_thinking", "thinking"):
            if re.search(rf"(?<![\w.'\"]){name}\b(?!['\"])", source):
                self._settings[name] = thinking == "on"
        self.dated = "strftime_now" in source
        if self.dated:
            # A name given to the template goes before the environment's function of that name.
            self._settings["strftime_now"] = date.strftime
        self._fault = lru_cache(maxsize=1024)(self._find_fault)

    def render(self, turns: Conversation, *, generation_prompt: bool) -> str:
        """The text of the turns. Raises ChatError where a turn's text would be lost or the template refuses it."""
        turns = self.adapted(turns, generation_prompt=generation_prompt)
        try:
            text = self._raw(turns, generation_prompt)
        except Exception as error:  # its roles pass: a template may refuse what a turn says
            reason = " ".join(str(error).split())[:200]
            raise ChatError(f"the chat template refused the conversation: {reason}") from None
        for number, turn in enumerate(turns):
            content = turn["content"]
            if turn["role"] == "assistant":  # templates may leave earlier thoughts out
                content = _THOUGHT_END.split(content)[-1]
            if content.strip() not in text:
                raise ChatError(f"the chat template changes the text of turn {number + 1} ({turn['role']})")
        return text

    def adapted(self, turns: Conversation, *, generation_prompt: bool) -> Conversation:
        """The turns as the template takes them: a system turn merged into the first user turn where it must be."""
        fault = self._fault(tuple(turn["role"] for turn in turns), generation_prompt)
        if fault is None:
            return turns
        merged = merge_system(turns)
        roles = tuple(turn["role"] for turn in merged)
        if self._fault(roles, generation_prompt) is None:
            return merged
        raise ChatError(fault)

    def fault(self, roles: tuple[str, ...]) -> str | None:
        """Why turns of these roles cannot be rendered as they are, with a generation prompt; None where they can."""
        return self._fault(roles, True)

    def merges_system(self) -> bool:
        """Whether a system turn is merged into the first user turn."""
        return self.fault(("system", "user")) is not None

    def _find_fault(self, roles: tuple[str, ...], generation_prompt: bool) -> str | None:
        turns = [{"role": role, "content": _PROBE.format(n)} for n, role in enumerate(roles)]
        named = ", ".join(roles)
        if not roles:
            return "a conversation without turns has no prompt"
        try:
            text = self._raw(turns, generation_prompt)
        except Exception as error:  # jinja2 errors and whatever a template raises itself
            reason = " ".join(str(error).split())[:200]
            return f"the chat template refused the turns ({named}): {reason}"
        lost = [n for n, turn in enumerate(turns) if turn["content"] not in text]
        if lost:
            return f"the chat template drops the text of turn {lost[0] + 1} of the turns ({named})"
        return None

    def _raw(self, turns: Conversation, generation_prompt: bool) -> str:
        return self._tokenizer.apply_chat_template(
            [dict(turn) for turn in turns],
            chat_template=self.source,
            tokenize=False,
            add_generation_prompt=generation_prompt,
            **self._settings,
        )
