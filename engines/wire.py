"""The bodies that go over the wire and the readings that come back, for each of the API's three ways.

Whatever a server sends, a parser here returns one reading per prompt; what it cannot make sense of is an "error".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from judges.asking.readout import ambiguous, checked, checked_text, read_listed
from judges.asking.verdict import read_verdict, verdict_schema
from judges.defusing import defused
from judges.records import Call, Reading

# The most that vLLM and most others list by default.
TOP_LOGPROBS = 20
# More tokens than any request has; two such counts still fit the ledger's 32 bits together.
_MOST_TOKENS = 2**30 - 1


def tokens_body(prompts: Sequence[Sequence[int]], option_ids: Sequence[int]) -> dict[str, Any]:
    """`/completions`, token ids in; vLLM lists exactly `option_ids`, other servers their likeliest tokens."""
    return {
        "prompt": [list(ids) for ids in prompts],
        "max_tokens": 1,
        "temperature": 0.0,
        "logprobs": TOP_LOGPROBS,
        "logprob_token_ids": list(option_ids),
        "return_tokens_as_token_ids": True,
        "add_special_tokens": False,
    }


def continuation_body(prompts: Sequence[Sequence[int]]) -> dict[str, Any]:
    """`/completions` that scores its own prompts: nothing is generated, every prompt token has its logprob."""
    return {"prompt": [list(ids) for ids in prompts], "max_tokens": 0, "echo": True, "logprobs": 1}


def text_body(calls: Sequence[Call]) -> dict[str, Any]:
    """`/completions`, text in."""
    return {
        "prompt": [defused(call.text or "") for call in calls],
        "max_tokens": 1,
        "temperature": 0.0,
        "logprobs": TOP_LOGPROBS,
    }


def chat_body(call: Call) -> dict[str, Any]:
    """`/chat/completions`, one conversation."""
    return {
        "messages": [{"role": m["role"], "content": defused(m["content"])} for m in call.messages],
        "max_tokens": 1,
        "temperature": 0.0,
        "logprobs": True,
        "top_logprobs": TOP_LOGPROBS,
    }


def writing_body(call: Call, prompts: Sequence[Sequence[int]] | None, texts: Sequence[str]) -> dict[str, Any]:
    """A request for text: `/completions` of token ids or texts, or `/chat/completions` when both are empty."""
    assert call.write is not None
    body: dict[str, Any] = {
        "max_tokens": call.write.max_tokens,
        "temperature": call.write.temperature,
        "top_p": call.write.top_p,
        "seed": call.write.seed,
    }
    if prompts:
        body |= {"prompt": [list(ids) for ids in prompts], "add_special_tokens": False}
    elif texts:
        body["prompt"] = [defused(text) for text in texts]
    else:
        body["messages"] = [{"role": m["role"], "content": defused(m["content"])} for m in call.messages]
    if call.verdict:
        schema = {"name": "verdict", "strict": True, "schema": verdict_schema(call.options)}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body


def read_writing(answer: Mapping[str, Any], calls: Sequence[Call]) -> list[Reading]:
    """Readings of `writing_body`: texts, or the verdicts that they hold. A text cut off is "truncated"."""

    def read(choice: Mapping[str, Any]) -> Reading:
        message = choice.get("message")
        if isinstance(message, dict) and message.get("refusal"):
            return Reading(status="refused", detail=str(message["refusal"])[:200])
        if choice.get("finish_reason") == "content_filter":
            return Reading(status="refused", detail="content filter")
        text = choice["text"] if message is None else message["content"]
        if not isinstance(text, str):
            raise TypeError(f"text is {type(text).__name__}")
        if choice.get("finish_reason") == "length":
            return Reading(status="truncated", text=text, detail="the text did not end within its tokens")
        return Reading(status="ok", text=text.strip())

    readings = _each(answer, len(calls), read)
    prompt_tokens, completion_tokens = _usage(answer, "prompt_tokens"), _usage(answer, "completion_tokens")
    counted = [
        replace(
            reading,
            prompt_tokens=prompt_tokens // len(calls),
            completion_tokens=completion_tokens // len(calls),
        )
        for reading in readings
    ]
    return [
        read_verdict(call, reading) if call.verdict else checked_text(reading)
        for call, reading in zip(calls, counted, strict=True)
    ]


def read_tokens(
    answer: Mapping[str, Any], lengths: Sequence[int], forms: Sequence[Sequence[int]]
) -> list[Reading]:
    """Readings of `tokens_body`: `lengths` of the prompts in tokens, `forms[i]` the ids that mean option i."""

    def read(choice: Mapping[str, Any]) -> Reading:
        listed = choice["logprobs"]["top_logprobs"][0]
        by_id = {int(name.removeprefix("token_id:")): float(lp) for name, lp in listed.items()}
        return read_listed(by_id, forms)

    readings = _each(answer, len(lengths), read)
    return [_counted(r, n, 1, len(forms)) for r, n in zip(readings, lengths, strict=True)]


def read_continuations(
    answer: Mapping[str, Any], starts: Sequence[int], lengths: Sequence[int]
) -> list[float | str]:
    """Per prompt of `continuation_body` the log probability of its tokens from `start` on, or what is wrong."""

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


def read_texts(answer: Mapping[str, Any], calls: Sequence[Call]) -> list[Reading]:
    """Readings of `text_body`; prompt tokens are shared out evenly, the API gives only their sum."""

    def read(choice: Mapping[str, Any]) -> Reading:
        return _read_spelled(choice["logprobs"]["top_logprobs"][0], calls[0].options)

    each = _usage(answer, "prompt_tokens") // len(calls)
    return [_counted(r, each, 1, len(calls[0].options)) for r in _each(answer, len(calls), read)]


def read_chat(answer: Mapping[str, Any], call: Call) -> Reading:
    """The reading of `chat_body`. A refusal that the API declares as such is "refused"."""

    def read(choice: Mapping[str, Any]) -> Reading:
        message = choice["message"]
        if message.get("refusal") or choice.get("finish_reason") == "content_filter":
            return Reading(status="refused", detail=str(message.get("refusal") or "content filter")[:200])
        listed: dict[str, float] = {}
        for entry in choice["logprobs"]["content"][0]["top_logprobs"]:
            # Two tokens may read the same; the likelier one comes first.
            listed.setdefault(str(entry["token"]), float(entry["logprob"]))
        return _read_spelled(listed, call.options)

    reading = _each(answer, 1, read)[0]
    return _counted(
        reading, _usage(answer, "prompt_tokens"), _usage(answer, "completion_tokens"), len(call.options)
    )


def _read_spelled(listed: Mapping[str, float], options: Sequence[str]) -> Reading:
    reading = read_listed(listed, [(option, f" {option}") for option in options])
    unclear = ambiguous(listed, options) if reading.status == "ok" else None
    if unclear is not None:
        detail = f"{unclear!r} may be the beginning of a longer option: give the model's tokenizer"
        return Reading(status="no_answer", detail=detail)
    return reading


_GARBAGE = (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, RecursionError)


def _each(answer: Mapping[str, Any], count: int, read: Callable[[Any], Reading]) -> list[Reading]:
    choices = _choices(answer, count)
    if isinstance(choices, str):
        return [Reading(status="error", detail=choices)] * count
    readings = []
    for choice in choices:
        try:
            readings.append(read(choice))
        except _GARBAGE as error:
            readings.append(Reading(status="error", detail=_nonsense(error)))
    return readings


def _choices(answer: Mapping[str, Any], count: int) -> list[Any] | str:
    """The answer's choices in the order of the prompts, or what is wrong with them."""
    choices = answer.get("choices")
    if not isinstance(choices, list):
        return "the server's answer has no choices"
    if len(choices) != count:
        return f"the server gave {len(choices)} answers to {count} prompts"
    try:
        by_index = {int(choice["index"]): choice for choice in choices}
    except _GARBAGE as error:
        return _nonsense(error)
    if set(by_index) != set(range(count)):
        return "the server's answers are not numbered like the prompts"
    return [by_index[n] for n in range(count)]


def _counted(reading: Reading, prompt_tokens: int, completion_tokens: int, n_options: int) -> Reading:
    counted = replace(reading, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)
    return checked(counted, n_options)


def _usage(answer: Mapping[str, Any], name: str) -> int:
    """A count of tokens; 0 where the server tells none that can be."""
    usage = answer.get("usage")
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if type(value) is int and 0 < value <= _MOST_TOKENS else 0  # bool is an int too


def _nonsense(error: Exception) -> str:
    return f"the server's answer makes no sense: {type(error).__name__} {str(error)[:100]}"
