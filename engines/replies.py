"""The answers in what servers send back, for each of the API's ways.

Whatever a server sends, a reader here returns one answer per prompt; what it cannot make sense of is an "error".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from engines.options import LITTLE_MASS, ambiguous, option_mass, read_listed, summed, thought_hint
from engines.protocol import Answer, Completion, Request, Spellings

# More tokens than any request has; two such counts still fit 32 bits together.
_MOST_TOKENS = 2**30 - 1


def read_completion(answer: Mapping[str, Any], decode: Callable[[Sequence[int]], str]) -> Completion | str:
    """The completion of `completion_body`, or what is wrong with it."""
    choices = _choices(answer, 1)
    if isinstance(choices, str):
        return choices
    try:
        ids = [int(i) for i in choices[0]["token_ids"]]
        logprobs = tuple(float(lp) for lp in choices[0]["logprobs"]["token_logprobs"])
        stopped = choices[0]["finish_reason"] == "stop"
    except _GARBAGE as error:
        return f"{_nonsense(error)} (rollouts need vLLM's token_ids and logprobs)"
    if len(ids) != len(logprobs) or not ids or not all(math.isfinite(lp) for lp in logprobs):
        return f"the server gave {len(logprobs)} log probabilities for {len(ids)} tokens"
    text = decode(ids[:-1] if stopped else ids)
    return Completion(
        text=text, token_ids=tuple(ids), logprobs=logprobs, finish_reason="stop" if stopped else "length"
    )


def read_writing(answer: Mapping[str, Any], requests: Sequence[Request]) -> list[Answer]:
    """Answers to `writing_body`. A text cut off is "truncated"."""

    def read(choice: Mapping[str, Any]) -> Answer:
        if (refusal := _refusal(choice)) is not None:
            return refusal
        message = choice.get("message")
        text = choice["text"] if message is None else message["content"]
        if not text and (kept := _kept_by_parser(choice)) is not None:
            return kept
        if not isinstance(text, str):
            raise TypeError(f"text is {type(text).__name__}")
        thought = None if message is None else message.get("reasoning_content") or message.get("reasoning")
        thought = thought.strip() if isinstance(thought, str) else None
        if choice.get("finish_reason") == "length":
            hint = thought_hint(text) and "; it began with a thought"
            return Answer(
                status="truncated",
                text=text,
                thought=thought,
                detail=f"the text did not end within its tokens{hint}",
            )
        return Answer(status="ok", text=text.strip(), thought=thought)

    count = len(requests)
    prompt_tokens, completion_tokens = _usage(answer, "prompt_tokens"), _usage(answer, "completion_tokens")
    return [
        replace(found, prompt_tokens=prompt_tokens // count, completion_tokens=completion_tokens // count)
        for found in _each(answer, count, read)
    ]


def read_tokens(
    answer: Mapping[str, Any], lengths: Sequence[int], spellings: Spellings, options: Sequence[str] = ()
) -> list[Answer]:
    """Answers to `tokens_body`: `lengths` of the prompts in tokens, single-token `spellings` of the options."""
    forms = [[spelling[0] for spelling in option] for option in spellings]

    def read(choice: Mapping[str, Any]) -> Answer:
        if (refusal := _refusal(choice)) is not None:
            return refusal
        listed = choice["logprobs"]["top_logprobs"][0]
        if listed and options and not any(name.startswith("token_id:") for name in listed):
            return _read_spelled(listed.items(), options, route="token ids")
        by_id = {int(name.removeprefix("token_id:")): float(lp) for name, lp in listed.items()}
        found = read_listed(by_id, forms, route="token ids")
        if found.status == "ok" and option_mass(found.logprobs or ()) < LITTLE_MASS:
            said = choice.get("text")
            hint = f"instead: {said[:40]!r}{thought_hint(said)}" if isinstance(said, str) and said else None
            return replace(found, detail=hint)
        return found

    found = _each(answer, len(lengths), read)
    return [replace(a, prompt_tokens=n, completion_tokens=1) for a, n in zip(found, lengths, strict=True)]


def read_continuations(
    answer: Mapping[str, Any], starts: Sequence[int], lengths: Sequence[int]
) -> list[float | str]:
    """Per prompt of `continuation_body` the log-probability of its tokens from `start` on, or what is wrong."""

    def read(choice: Mapping[str, Any], start: int, length: int) -> float:
        values = choice["logprobs"]["token_logprobs"][start:length]
        if len(values) != length - start:
            raise ValueError(f"{len(values)} log probabilities for {length - start} tokens")
        return float(sum(values))

    choices = _choices(answer, len(starts))
    if isinstance(choices, str):
        return [choices] * len(starts)
    found: list[float | str] = []
    for choice, start, length in zip(choices, starts, lengths, strict=True):
        try:
            found.append(read(choice, start, length))
        except _GARBAGE as error:
            found.append(_nonsense(error))
    return found


def add_up(scores: Sequence[float | str], prompt: Sequence[int], spellings: Spellings) -> Answer:
    """The answer of a prompt from the scores of its continuations, option by option and spelling by spelling."""
    wrong = [score for score in scores if isinstance(score, str)]
    if wrong:
        return Answer(status="error", detail=wrong[0])
    flat = [spelling for option in spellings for spelling in option]
    values = summed(dict(zip(flat, map(float, scores), strict=True)), spellings)
    return Answer(status="ok", logprobs=values, prompt_tokens=len(prompt), completion_tokens=1)


def read_texts(answer: Mapping[str, Any], requests: Sequence[Request]) -> list[Answer]:
    """Answers to `text_body`; prompt tokens are shared out evenly, the API gives only their sum."""

    def read(choice: Mapping[str, Any]) -> Answer:
        if (refusal := _refusal(choice)) is not None:
            return refusal
        listed = choice["logprobs"]["top_logprobs"][0]
        return _read_spelled(listed.items(), requests[0].options, route="text")

    each = _usage(answer, "prompt_tokens") // len(requests)
    found = _each(answer, len(requests), read)
    return [replace(a, prompt_tokens=each, completion_tokens=1) for a in found]


def read_chat(answer: Mapping[str, Any], request: Request) -> Answer:
    """The answer to `chat_body`. A refusal that the API declares as such is "refused"; where a reasoning parser kept
    the answer, it is "truncated"."""

    def read(choice: Mapping[str, Any]) -> Answer:
        if (refusal := _refusal(choice)) is not None:
            return refusal
        message, kept = choice["message"], _kept_by_parser(choice)
        listed: Any = choice.get("logprobs")
        if not listed or not listed.get("content"):
            if kept is not None:
                return kept
            if isinstance(message.get("content"), str):
                detail = "the server gives no log probabilities: choose readout: verdict"
                return Answer(status="error", detail=f"{detail} (it said {message['content'][:40]!r})")
        entries = [(str(e["token"]), float(e["logprob"])) for e in listed["content"][0]["top_logprobs"]]
        found = _read_spelled(entries, request.options, route="chat")
        little = found.logprobs is None or option_mass(found.logprobs) < LITTLE_MASS
        if kept is not None and little and found.status != "error":
            return kept
        return found

    found = _each(answer, 1, read)[0]
    return replace(
        found,
        prompt_tokens=_usage(answer, "prompt_tokens"),
        completion_tokens=_usage(answer, "completion_tokens"),
    )


def _refusal(choice: Mapping[str, Any]) -> Answer | None:
    """What a server declares as a refusal of the model's or of its content filter."""
    message = choice.get("message")
    said = message.get("refusal") if isinstance(message, dict) else None
    if said or choice.get("finish_reason") == "content_filter":
        return Answer(status="refused", detail=str(said or "content filter")[:200])
    return None


def _kept_by_parser(choice: Mapping[str, Any]) -> Answer | None:
    """The answer where a reasoning parser kept the text: the tokens went into a thought, and none are left."""
    message = choice.get("message")
    if not isinstance(message, dict) or message.get("content"):
        return None
    field = next((name for name in ("reasoning_content", "reasoning") if message.get(name)), None)
    # Without a parser a token that reads as nothing leaves an empty text, not null.
    nothing = "content" in message and message["content"] is None and choice.get("finish_reason") == "length"
    if field is None and not nothing:
        return None
    thought = f": {str(message[field])[:80]!r}" if field else ""
    ended = choice.get("finish_reason") != "length"
    return Answer(
        status="no_answer" if ended else "truncated",
        detail=f"the server's reasoning parser left no content ({field or 'content: null'}{thought}); start it "
        "without --reasoning-parser, or set judge.thinking: off",
        cause="chat: reasoning parser",
    )


def _read_spelled(entries: Iterable[tuple[str, float]], options: Sequence[str], *, route: str) -> Answer:
    """From a list of tokens as text. Tokens that read the same count together: `A` twice, `▁A` and ` A`."""
    listed: dict[str, float] = {}
    for token, logprob in entries:
        text = " " + token[1:] if token[:1] in ("▁", "Ġ") else token
        before = listed.get(text)
        listed[text] = float(logprob) if before is None else _log_sum(before, float(logprob))
    found = read_listed(listed, [(option, f" {option}") for option in options], route=route)
    unclear = ambiguous(listed, options) if found.status == "ok" else None
    if unclear is not None:
        detail = f"{unclear!r} may be the beginning of a longer option: give the model's tokenizer"
        return Answer(status="no_answer", detail=detail, cause=f"{route}: {len(listed)} tokens listed")
    return found


def _log_sum(x: float, y: float) -> float:
    return x if y == -math.inf else max(x, y) + math.log1p(math.exp(-abs(x - y)))


_GARBAGE = (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, RecursionError)


def _each(answer: Mapping[str, Any], count: int, read: Callable[[Any], Answer]) -> list[Answer]:
    choices = _choices(answer, count)
    if isinstance(choices, str):
        return [Answer(status="error", detail=choices)] * count
    found = []
    for choice in choices:
        try:
            found.append(read(choice))
        except _GARBAGE as error:
            found.append(Answer(status="error", detail=_nonsense(error)))
    return found


def _choices(answer: Mapping[str, Any], count: int) -> list[Any] | str:
    """The answer's choices in the order of the prompts, or what is wrong with them."""
    choices = answer.get("choices")
    if not isinstance(choices, list):
        return "the server's answer has no choices"
    if len(choices) != count:
        return f"the server gave {len(choices)} answers to {count} prompts"
    try:
        by_index = {
            int(choice.get("index", 0) if count == 1 else choice["index"]): choice for choice in choices
        }
    except _GARBAGE as error:
        return _nonsense(error)
    if set(by_index) != set(range(count)):
        return "the server's answers are not numbered like the prompts"
    return [by_index[n] for n in range(count)]


def _usage(answer: Mapping[str, Any], name: str) -> int:
    """A count of tokens; 0 where the server tells none that can be."""
    usage = answer.get("usage")
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if type(value) is int and 0 < value <= _MOST_TOKENS else 0  # bool is an int too


def _nonsense(error: Exception) -> str:
    return f"the server's answer makes no sense: {type(error).__name__} {str(error)[:100]}"
