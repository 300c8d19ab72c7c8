"""Pointwise scores: the expected score of one response over 1 to 10 (Lee et al. 2023, section 2.2.2).

For direct RLAIF, where a judge scores what the policy has just written, and to compare with pairwise labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from common.digest import digest
from constitution import Constitution, draw_comparison
from judges.asking.ask import ask_judge
from judges.asking.combine import Margins, reading_status
from judges.asking.readout import normalised
from judges.asking.templates import SCORES, TemplateSet
from judges.records import Judge, Message, Status

LOWEST, HIGHEST = int(SCORES[0]), int(SCORES[-1])


@dataclass(frozen=True, kw_only=True)
class Score:
    """The expected score in [1, 10] under one principle; None with the status that says why."""

    value: float | None
    status: Status
    principle: str
    detail: str | None = None


class PointwiseScorer:
    """Scores responses under principles drawn for their conversations; usable as a reward function."""

    def __init__(
        self,
        judge: Judge,
        constitution: Constitution,
        *,
        templates: str = "default",
        seed: int = 0,
        mass_threshold: float = 0.5,
    ) -> None:
        """Raises JudgeError for an unknown template set or one without pointwise.j2 (at the first score)."""
        self._judge = judge
        self._constitution = constitution
        self._templates = TemplateSet(templates)
        self._seed = seed
        self._margins = Margins(mass=mass_threshold)

    def scores(self, conversations: Sequence[Sequence[Message]], responses: Sequence[str]) -> list[Score]:
        """One score per response. A conversation draws the same principle for all of its responses."""
        principles, calls = [], []
        for conversation, response in zip(conversations, responses, strict=True):
            key = digest([dict(m) for m in conversation])
            principle = draw_comparison(self._constitution, key, seed=self._seed)[0]
            principles.append(principle.id)
            calls.append(self._templates.pointwise(conversation, response, principle.question))
        found = []
        for principle_id, reading in zip(principles, ask_judge(self._judge, calls), strict=True):
            status = reading_status(reading, self._margins)
            value = None
            if status == "ok" and reading.logprobs is not None:
                value = sum(n * p for n, p in enumerate(normalised(reading.logprobs), start=LOWEST))
            found.append(Score(value=value, status=status, principle=principle_id, detail=reading.detail))
        return found

    def __call__(
        self, conversations: Sequence[Sequence[Message]], responses: Sequence[str]
    ) -> list[float | None]:
        """The scores as rewards in [0, 1]; None where there is none, which is not a reward of 0."""
        return [
            None if score.value is None else (score.value - LOWEST) / (HIGHEST - LOWEST)
            for score in self.scores(conversations, responses)
        ]
