"""A judge that a Python function plays: for tests, for trivial baselines, and to try a flow without a model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from judges.asking.readout import checked, checked_text
from judges.asking.verdict import read_verdict
from judges.records import Call, JudgeIdentity, Reading


class ScriptedJudge:
    """Answers every call with `fn(call)`.

    Where the call asks for text (`call.write`), `fn` returns it; for a verdict, the JSON. Otherwise it returns an
    option ("A": certain of it), the probability of the first option as a float, a tuple of log probabilities, or
    a whole `Reading`. Anything else, and any exception, is a reading with status "error".
    """

    def __init__(self, fn: Callable[[Call], Any], *, name: str = "scripted", revision: str = "1") -> None:
        self._fn = fn
        self._identity = JudgeIdentity(kind="scripted", model=name, revision=revision, build="charter")

    @property
    def identity(self) -> JudgeIdentity:
        return self._identity

    def ask(self, calls: Sequence[Call]) -> list[Reading]:
        return [self._answer(call) for call in calls]

    def _answer(self, call: Call) -> Reading:
        try:
            answer = self._fn(call)
        except Exception as error:
            return Reading(status="error", detail=f"{type(error).__name__}: {error}")
        if call.write is not None and isinstance(answer, str):
            written = checked_text(Reading(status="ok", text=answer))
            return read_verdict(call, written) if call.verdict else written
        if isinstance(answer, str):
            if answer not in call.options:
                return Reading(status="no_answer", text=answer[:200], detail="the answer is not an option")
            answer = tuple(0.0 if option == answer else -math.inf for option in call.options)
        elif isinstance(answer, float):
            if len(call.options) != 2 or not 0.0 <= answer <= 1.0:
                return Reading(status="error", detail=f"{answer} is not a probability of two options")
            answer = tuple(math.log(p) if p > 0 else -math.inf for p in (answer, 1.0 - answer))
        if isinstance(answer, tuple):
            answer = Reading(status="ok", logprobs=answer)
        if call.write is not None and not call.verdict:
            return checked_text(answer)
        return checked(answer, len(call.options))
