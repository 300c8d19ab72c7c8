"""Asking judges: a failed call is a reading, whatever the judge does; a rationale comes before its answer."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from judges.asking.readout import checked, checked_text
from judges.errors import JudgeError
from judges.records import Call, Judge, Reading


def ask_judges(judges: Sequence[Judge], numbers: Sequence[int], calls: Sequence[Call]) -> list[Reading]:
    """One reading per call, call i put to judge `numbers[i]`; several judges are asked at the same time.

    Raises JudgeError where a judge says that no call could ever succeed.
    """
    shares = {j: [i for i, n in enumerate(numbers) if n == j] for j in dict.fromkeys(numbers)}
    readings: list[Reading | None] = [None] * len(calls)

    def ask(share: tuple[int, list[int]]) -> list[Reading]:
        judge, mine = share
        return ask_judge(judges[judge], [calls[i] for i in mine])

    if len(shares) == 1:
        answers = [ask(share) for share in shares.items()]
    else:
        with ThreadPoolExecutor(len(shares), thread_name_prefix="judges") as executor:
            answers = list(executor.map(ask, shares.items()))
    for mine, found in zip(shares.values(), answers, strict=True):
        for i, reading in zip(mine, found, strict=True):
            readings[i] = reading
    return [r for r in readings if r is not None]


def ask_judge(judge: Judge, calls: Sequence[Call]) -> list[Reading]:
    """One reading per call. A call that writes (a rationale) is followed by the one that reads the letter."""
    first = _answers(judge, calls)
    thoughtful = [i for i, c in enumerate(calls) if c.conclude is not None and first[i].status == "ok"]
    if not thoughtful:
        return first
    second = _answers(judge, [_concluding(calls[i], first[i].text or "") for i in thoughtful])
    for i, answer in zip(thoughtful, second, strict=True):
        written = first[i]
        costs = [r.cost for r in (written, answer) if r.cost is not None]
        first[i] = replace(
            answer,
            text=written.text,
            thought=written.thought,
            prompt_tokens=written.prompt_tokens + answer.prompt_tokens,
            completion_tokens=written.completion_tokens + answer.completion_tokens,
            latency_s=written.latency_s + answer.latency_s,
            cost=sum(costs) if costs else None,
        )
    return first


def _concluding(call: Call, rationale: str) -> Call:
    """The call that reads the letter after the judge's own `rationale`, written in answer to `call`."""
    turns = ({"role": "assistant", "content": rationale}, {"role": "user", "content": call.conclude or ""})
    return Call(messages=call.messages + turns, options=call.options, think=False)


def _answers(judge: Judge, calls: Sequence[Call]) -> list[Reading]:
    """What the judge returned, checked; its exceptions and miscounts are readings too."""
    try:
        readings = judge.ask(calls)
    except JudgeError:
        raise
    except Exception as error:
        # The judge is at fault, not the user: its batch failed, the run goes on.
        return [Reading(status="error", detail=f"{type(error).__name__}: {error}"[:500])] * len(calls)
    if len(readings) != len(calls):
        detail = f"the judge gave {len(readings)} readings for {len(calls)} calls"
        return [Reading(status="error", detail=detail)] * len(calls)
    return [
        checked_text(reading)
        if call.write is not None and not call.verdict
        else checked(reading, len(call.options))
        for reading, call in zip(readings, calls, strict=True)
    ]
