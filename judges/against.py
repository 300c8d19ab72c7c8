"""Scores against a baseline: how much rather the judge would have a response than a known one to the same prompt.

For direct RLAIF with a judge that compares but cannot mark single answers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from common.digest import digest
from constitution import Constitution, draw_comparison
from judges.asking.ask import ask_judge
from judges.asking.combine import Margins, combine
from judges.asking.templates import TemplateSet
from judges.records import ORDERS, Judge, Message, Pair

LIMIT = 4.0
"""Scores stay within plus and minus this: beyond 98% the judge's certainty says nothing more."""


def conversation_key(conversation: Sequence[Message]) -> str:
    """What a baseline is known by."""
    return digest([dict(message) for message in conversation])


class BaselineScorer:
    """Scores a response by the log-odds with which the judge prefers it to the baseline; a reward function."""

    def __init__(
        self,
        judge: Judge,
        constitution: Constitution,
        baselines: Mapping[str, str],
        *,
        principles: int = 1,
        templates: str = "default",
        seed: int = 0,
        mass_threshold: float = 0.5,
    ) -> None:
        """`baselines` maps `conversation_key` to a response. A conversation draws the same `principles` for all of its
        responses. Raises JudgeError for an unknown template set."""
        self._judge, self._constitution, self._baselines = judge, constitution, dict(baselines)
        self._principles, self._templates, self._seed = principles, TemplateSet(templates), seed
        self._margins = Margins(mass=mass_threshold)

    def __call__(
        self, conversations: Sequence[Sequence[Message]], responses: Sequence[str]
    ) -> list[float | None]:
        """log(p / (1 - p)) within ±4, p averaged over both orders (Lee et al. 2023, section 2.1.1) and all principles.

        0 where the response is the baseline. None, and never 0, where there is no baseline or a judgement failed.
        """
        scores: list[float | None] = [None] * len(responses)
        calls, asked = [], []
        for place, (conversation, response) in enumerate(zip(conversations, responses, strict=True)):
            key = conversation_key(conversation)
            baseline = self._baselines.get(key)
            if baseline is None:
                continue
            if response == baseline:
                scores[place] = 0.0
                continue
            drawn = draw_comparison(self._constitution, key, seed=self._seed, n=self._principles)
            pair = Pair(id=key, prompt=tuple(conversation), a=response, b=baseline)
            calls += [self._templates.pairwise(pair, p.question, order) for p in drawn for order in ORDERS]
            asked.append((place, len(drawn)))
        readings = iter(ask_judge(self._judge, calls))
        for place, votes in asked:
            found = combine([[next(readings) for _ in ORDERS] for _ in range(votes)], self._margins)
            if found.p is not None:
                scores[place] = _log_odds(found.p)
        return scores


def _log_odds(p: float) -> float:
    bound = 1 / (1 + math.exp(-LIMIT))
    p = min(max(p, 1 - bound), bound)
    return math.log(p / (1 - p))
