"""From two conversations, or several graded answers, to what is asked and which answer is better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from common.rows.source import fail
from common.rows.turns import Turns, is_transcript, messages, prompt_turns, transcript

ENDS_WITH_USER = "a conversation ends with the user's words, so there is no answer to compare"
PART_EARLY = "the conversations part before their last answers"
EQUAL = "both answers are the same"
TIE = "a tie"
EMPTY = "the last user turn is empty"


@dataclass(frozen=True, kw_only=True)
class Content:
    """What one row says, in any format.

    `prompt` is what is asked. `pairs` holds (better, worse, p), and without any, `why_no_pair` says why. `answer` is a
    lone one with its `label`, or a `score` that other rows of the same prompt are compared by. `conversation` is a
    demonstration, `note` what a user should know of how the row was read.
    """

    prompt: Turns
    pairs: tuple[tuple[str, str, float], ...] = ()
    why_no_pair: str = ""
    conversation: Turns | None = None
    answer: str | None = None
    label: Any = None
    score: float | None = None
    note: str = ""
    meta: dict[str, Any] = field(default_factory=dict)


def between(chosen: Turns, rejected: Turns, p: float = 1.0, note: str = "") -> Content:
    """Two whole conversations that share all turns but the last, the answers."""
    prompt = asked(chosen)
    why = ""
    if "user" in (chosen[-1]["role"], rejected[-1]["role"]):
        why = ENDS_WITH_USER
    elif chosen[:-1] != rejected[:-1]:
        why = PART_EARLY
    elif not chosen[:-1] or chosen[-2]["role"] != "user":
        why = "no user turn stands before the answers"
    elif {chosen[-1]["role"], rejected[-1]["role"]} != {"assistant"}:
        why = "the last turns are not the assistant's"
    if why:
        return Content(prompt=prompt, why_no_pair=why)
    return among(prompt, [(chosen[-1]["content"], 1.0), (rejected[-1]["content"], 0.0)], p=p, note=note)


def among(prompt: Turns, graded: Sequence[tuple[str, float]], *, p: float = 1.0, note: str = "") -> Content:
    """All pairs of answers whose grades differ, the higher graded one first."""
    pairs, equal = [], 0
    for (first, one), (second, other) in combinations(graded, 2):
        if first == second:
            equal += 1
        elif one != other:
            pairs.append((first, second, p) if one > other else (second, first, p))
    why = "" if pairs else EQUAL if equal else TIE if len(graded) > 1 else "one answer alone"
    return Content(prompt=prompt, pairs=tuple(pairs), why_no_pair=why, note=note)


def asked(turns: Turns) -> Turns:
    """The turns before the last answer: without the assistant's at the end."""
    end = len(turns)
    while end and turns[end - 1]["role"] == "assistant":
        end -= 1
    return turns[:end]


def from_answers(prompt: Any, chosen: Any, rejected: Any, p: float, place: str) -> Content:
    """A pair as `prompt`, `chosen` and `rejected` have it.

    Answers are texts, messages, or whole conversations that repeat the prompt. Without a prompt they are transcripts,
    conversations, or texts whose common beginning, up to a word's end, is the prompt.
    """
    texts = isinstance(chosen, str) and isinstance(rejected, str)
    if prompt is None and texts and not any(is_transcript(side, whole=True) for side in (chosen, rejected)):
        return _begin_alike(chosen, rejected, p, place)
    found = [
        conversation(prompt, answer, name, place)
        for name, answer in (("chosen", chosen), ("rejected", rejected))
    ]
    if None in found:
        turns = prompt_turns(prompt, "prompt", place)
        return Content(prompt=asked(turns), why_no_pair="prompt is none of the conversation's turns")
    return between(found[0], found[1], p)  # type: ignore[arg-type]


def conversation(prompt: Any, answer: Any, name: str, place: str) -> Turns | None:
    """Prompt and answer as one conversation; None where the answer is a conversation of other turns."""
    if prompt is None:
        if not isinstance(answer, str):
            return messages(answer, name, place)
        if not is_transcript(answer, whole=True):
            fail(
                place,
                name,
                "is no transcript of turns that begin with Human: and Assistant:, and prompt is missing",
            )
        return transcript(answer)
    turns = prompt_turns(prompt, "prompt", place)
    if not isinstance(answer, str):
        spoken = messages(answer, name, place)
        return turns + spoken if spoken[0]["role"] == "assistant" else _reconciled(turns, spoken)
    whole = transcript(answer) if is_transcript(answer) else []
    if whole and whole[0]["role"] == "user" and (merged := _reconciled(turns, whole)):
        return merged
    if isinstance(prompt, str) and is_transcript(prompt):
        # What follows "Assistant:" may hold further turns.
        return turns + transcript(answer if whole else f"Assistant:{answer}")
    return [*turns, {"role": "assistant", "content": answer}]


def _reconciled(prompt: Turns, whole: Turns) -> Turns | None:
    """A whole conversation that repeats its prompt, or more than the prompt, or its last turns."""
    before = asked(whole)
    if whole[: len(prompt)] == prompt:
        return whole
    if before and prompt[-len(before) :] == before:
        return prompt + whole[len(before) :]
    texts = {turn["content"].strip() for turn in before if turn["role"] == "user"}
    return whole if len(prompt) == 1 and prompt[0]["content"].strip() in texts else None


def _begin_alike(chosen: str, rejected: str, p: float, place: str) -> Content:
    same = next((n for n, (c, r) in enumerate(zip(chosen, rejected, strict=False)) if c != r), None)
    shared = chosen[: min(len(chosen), len(rejected)) if same is None else same]
    if chosen == rejected:
        return Content(prompt=[{"role": "user", "content": chosen}], why_no_pair=EQUAL)
    if not (chosen[len(shared) :][:1].isspace() or rejected[len(shared) :][:1].isspace()):
        shared = shared[: max((n for n, c in enumerate(shared) if c.isspace()), default=0)]
    if not shared.strip():
        fail(
            place,
            "prompt",
            "is missing, and chosen and rejected are no transcripts and begin with other words",
        )
    prompt = [{"role": "user", "content": shared}]
    return among(prompt, [(chosen[len(shared) :], 1.0), (rejected[len(shared) :], 0.0)], p=p)
