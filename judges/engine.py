"""From calls to an engine's requests, and from its answers to readings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace

from common.chat import ChatError
from common.chat.thoughts import split_thought
from engines import Answer, Request, Sampling, Spellings
from engines.remote import row_seed
from judges.asking.readout import checked, checked_text
from judges.asking.verdict import read_verdict, verdict_schema
from judges.encoding import CallEncoder
from judges.records import Call, Reading

_ANSWER_FIELDS = tuple(field.name for field in fields(Answer))


def to_request(
    call: Call,
    ids: list[int] | None = None,
    encoder: CallEncoder | None = None,
    *,
    thinking: bool | None = None,
    budget: int = 0,
) -> Request:
    """What an engine is asked: token ids where the judge has the tokenizer, else the call's own text or turns.

    `thinking` and the `budget` of a thought are for servers that render the turns themselves.

    A rationale that is drawn has a seed of its own per prompt: under one seed all would draw from the same noise.
    """
    write, seed = None, 0
    if call.write is not None:
        write = Sampling(
            max_new_tokens=call.write.max_tokens + budget,
            temperature=call.write.temperature,
            top_p=call.write.top_p,
        )
        seed = call.write.seed
        if write.temperature > 0:
            seed = row_seed(seed, int(call.digest[:15], 16))
    schema = verdict_schema(call.options) if call.verdict else None
    if ids is None or encoder is None:
        return Request(
            text=call.text,
            messages=() if call.text is not None else call.messages,
            options=call.options,
            write=write,
            seed=seed,
            schema=schema,
            thinking=thinking,
        )
    return Request(
        ids=tuple(ids),
        options=call.options,
        spellings=() if write is not None else spellings(encoder, call),
        write=write,
        seed=seed,
        schema=schema,
    )


def to_requests(calls: Sequence[Call], encoder: CallEncoder) -> tuple[dict[int, Request], dict[int, Answer]]:
    """Requests by their calls' numbers; and the answers of those that the chat template refuses, whom nobody asks."""
    prompts, refused = encoded(calls, encoder.encode)
    return {n: to_request(calls[n], ids, encoder) for n, ids in prompts.items()}, refused


def encoded(
    calls: Sequence[Call], encode: Callable[[Sequence[Call]], list[list[int]]]
) -> tuple[dict[int, list[int]], dict[int, Answer]]:
    """Token ids by the calls' numbers; and the answers of calls that the chat template refuses.

    Another template is another judge, so such an answer is "no_answer" and is kept.
    """
    try:
        return dict(enumerate(encode(calls))), {}
    except ChatError:
        prompts: dict[int, list[int]] = {}
        refused: dict[int, Answer] = {}
        for n, call in enumerate(calls):
            try:
                (prompts[n],) = encode([call])
            except ChatError as error:
                refused[n] = Answer(status="no_answer", detail=f"the judge's chat template: {error}")
        return prompts, refused


def spellings(encoder: CallEncoder, call: Call) -> Spellings:
    """The token ids of every option behind the call's prompt: single tokens where those tell them apart."""
    forms = encoder.distinct_forms(call.options)
    if forms is not None:
        return tuple(tuple((i,) for i in form) for form in forms)
    plain = encoder.is_plain(call)
    return tuple((tuple(encoder.continuation(option, plain=plain)),) for option in call.options)


def to_reading(answer: Answer, call: Call, *, latency_s: float = 0.0, cost: float | None = None) -> Reading:
    """The reading of an answer, checked, its thought taken out of its text; for a verdict, what its text says."""
    reading = Reading(
        **{name: getattr(answer, name) for name in _ANSWER_FIELDS}, latency_s=latency_s, cost=cost
    )
    if call.write is not None and reading.text is not None:
        found = split_thought(reading.text)
        if not found.ended:
            detail = "the thought did not end within the text's tokens; see judge.thinking"
            return replace(reading, status="truncated", text=None, thought=found.thought, detail=detail)
        if found.thought:
            reading = replace(reading, text=found.answer, thought=found.thought)
    if call.verdict:
        return read_verdict(call, reading)
    if call.write is not None:
        return checked_text(reading)
    return checked(reading, len(call.options))
