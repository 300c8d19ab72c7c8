"""Judges that think before they answer: the thought is opened, written up to its budget, closed, and the answer read
behind it. No parser looks for an answer in a thought, and no thought enters another prompt."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from common.chat import ChatRenderer
from common.chat.thoughts import Marks, marks_of, split_thought
from engines import Answer, Request, Sampling
from engines.remote import row_seed
from judges.encoding import CallEncoder
from judges.engine import encoded, to_request, to_requests
from judges.errors import JudgeError
from judges.records import Call

_log = logging.getLogger(__name__)

BUDGET = 1024
"""Tokens of a thought where the setting names none."""
# What the makers of open thinking models advise; greedy thoughts run in circles.
_TEMPERATURE, _TOP_P = 0.6, 0.95
_CLOSING_ROOM = 16


class ThinkingBudget(BaseModel):
    """Thinking with a limit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    budget: int = Field(
        ge=1, le=131_072, description="Most tokens of a thought; a longer one is closed there."
    )


Thinking = Literal["off", "on"] | ThinkingBudget


def yaml_word(value: Any) -> Any:
    """YAML reads on and off as truth values."""
    return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value


def budget_of(thinking: Thinking | None) -> int | None:
    """The most tokens of a thought; None where the judge is not to think."""
    if isinstance(thinking, ThinkingBudget):
        return thinking.budget
    return BUDGET if thinking == "on" else None


def serving_of(thinking: Thinking | None, *, by_ids: bool) -> str:
    """What of the setting decides an answer beside the prompt; empty where it changes nothing.

    Prompts that are rendered here have no thought unless it is asked for, whatever the setting.
    """
    budget = budget_of(thinking)
    if budget is not None:
        return f"thinking, budget {budget}"
    return "thinking off" if thinking == "off" and not by_ids else ""


class ThoughtEncoder:
    """Prompts that end in an opened thought, and what closes it, for a tokenizer whose model thinks."""

    def __init__(self, tokenizer: Any) -> None:
        """Raises JudgeError for a tokenizer whose template and vocabulary know no thoughts."""
        self._renderer = ChatRenderer(tokenizer, thinking="on")
        added = [str(token) for token in tokenizer.added_tokens_decoder.values()]
        marks = marks_of(self._renderer.template.source, added) if self._renderer.has_template else None
        if marks is None:
            raise JudgeError(
                "judge.thinking: this model's chat template and vocabulary know no thoughts; leave it out, or have the "
                "judge write first (labels.rationales: 1)"
            )
        self.marks: Marks = marks
        tokens = self._renderer.tokens
        self._opening = [] if self._renderer.traits.opens_thought else tokens.following(marks.opened)
        closing = tokens.following(marks.closing)
        self.stop_ids = tuple(closing) if len(closing) == 1 else ()

    def opened(self, calls: Sequence[Call]) -> list[list[int]]:
        """Token ids of each call up to the place where the thought's text begins."""
        if any(call.text is not None for call in calls):
            raise JudgeError(
                "judge.thinking: this template set writes plain text; thoughts need a chat template"
            )
        prompts = self._renderer.prompts_ids([call.messages for call in calls])
        return [ids + self._opening for ids in prompts]

    def closed(self, thought: str) -> list[int]:
        """Token ids of a thought and its end; marks that the thought spells stay text."""
        return self._renderer.tokens.following(self.marks.closed(self._renderer.tokens.escape(thought)))


class Thinker:
    """Answers calls with a thought before each. `ask` puts requests to an engine, `context` is its longest sequence."""

    def __init__(self, tokenizer: Any, encoder: CallEncoder, budget: int) -> None:
        self._thoughts, self._encoder, self._budget = ThoughtEncoder(tokenizer), encoder, budget
        self._warned = False

    def answer(
        self, calls: Sequence[Call], ask: Callable[[list[Request]], list[Answer]], *, context: int
    ) -> list[Answer]:
        """One answer per call, its `thought` beside it; a thought that did not end in time is closed, and `detail`
        says so."""
        prompts, found = encoded(calls, self._thoughts.opened)
        rooms = {n: self._room(calls[n], ids, context) for n, ids in prompts.items()}
        asked = [n for n, room in rooms.items() if room > 0]
        for n in prompts.keys() - set(asked):
            detail = (
                f"prompt and answer leave no room for a thought in the {context} tokens that the model takes"
            )
            found[n] = Answer(
                status="truncated",
                detail=detail,
                cause=f"context {context}",
                prompt_tokens=len(prompts[n]),
            )
        thoughts = ask([self._thought(calls[n], prompts[n], rooms[n]) for n in asked])
        going_on: list[tuple[int, str, Answer]] = []
        for n, thought in zip(asked, thoughts, strict=True):
            if thought.text is None or thought.status not in ("ok", "truncated"):
                found[n] = thought
                continue
            text = split_thought(self._thoughts.marks.opening + thought.text, opened=True).thought
            going_on.append((n, text, thought))
        answers = ask(
            [
                to_request(calls[n], prompts[n] + self._thoughts.closed(text), self._encoder)
                for n, text, _ in going_on
            ]
        )
        for (n, text, thought), answer in zip(going_on, answers, strict=True):
            found[n] = self._together(text, thought, answer, rooms[n])
        return [found[n] for n in range(len(calls))]

    def _thought(self, call: Call, ids: list[int], room: int) -> Request:
        sampling = Sampling(
            max_new_tokens=room, temperature=_TEMPERATURE, top_p=_TOP_P, stop_ids=self._thoughts.stop_ids
        )
        return Request(ids=tuple(ids), write=sampling, seed=row_seed(0, int(call.digest[:15], 16)))

    def _room(self, call: Call, ids: list[int], context: int) -> int:
        after = _CLOSING_ROOM + (call.write.max_tokens if call.write is not None else 1)
        return min(self._budget, context - len(ids) - after)

    def _together(self, text: str, thought: Answer, answer: Answer, room: int) -> Answer:
        detail = answer.detail
        if thought.status == "truncated":
            said = f"the thought was closed after {room} tokens"
            detail = said if detail is None else f"{detail}; {said}"
            if not self._warned:
                self._warned = True
                _log.warning(
                    "a judge's thought did not end: it was closed after %d tokens (judge.thinking)", room
                )
        return replace(
            answer,
            thought=text,
            detail=detail,
            prompt_tokens=thought.prompt_tokens + answer.prompt_tokens,
            completion_tokens=thought.completion_tokens + answer.completion_tokens,
        )


def answered(
    calls: Sequence[Call],
    encoder: CallEncoder,
    thinker: Thinker | None,
    ask: Callable[[list[Request]], list[Answer]],
    *,
    context: int,
) -> list[Answer]:
    """One answer per call by token ids, behind a thought where there is a thinker and the call takes one."""
    thoughtful = [n for n, call in enumerate(calls) if thinker is not None and call.think]
    plain = [n for n in range(len(calls)) if n not in set(thoughtful)]
    requests, refused = to_requests([calls[n] for n in plain], encoder)
    found = {plain[k]: answer for k, answer in refused.items()}
    answers = ask(list(requests.values())) if requests else []
    found |= {plain[k]: answer for k, answer in zip(requests, answers, strict=True)}
    if thinker is not None and thoughtful:
        behind = thinker.answer([calls[n] for n in thoughtful], ask, context=context)
        found |= dict(zip(thoughtful, behind, strict=True))
    return [found[n] for n in range(len(calls))]
