"""Head to head: two models' answers to the same prompts, and how often each is preferred."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from common.statistics import away_from_half, bounded_mean
from flows.evaluation.length_control import length_controlled


@dataclass(frozen=True, kw_only=True)
class Match:
    """One comparison of an answer of model `a` with one of model `b` to the same prompt.

    `outcome` is 1 where a's answer was preferred, 0 where b's, one half for a tie, None where the judgement
    failed: that is no score. `words_a` and `words_b` are the answers' lengths.
    """

    prompt: str
    a: str
    b: str
    outcome: float | None
    words_a: int
    words_b: int

    def seen_from(self, model: str) -> Match:
        """The same match with `model` as its `a`."""
        if model == self.a:
            return self
        return Match(
            prompt=self.prompt,
            a=self.b,
            b=self.a,
            outcome=None if self.outcome is None else 1.0 - self.outcome,
            words_a=self.words_b,
            words_b=self.words_a,
        )


def between(matches: Iterable[Match], a: str, b: str) -> list[Match]:
    """The matches of `a` and `b`, all seen from `a`."""
    return [m.seen_from(a) for m in matches if {m.a, m.b} == {a, b}]


def head_to_head(matches: Sequence[Match]) -> dict[str, Any]:
    """What matches of one pair of models, all seen from the same one, come to.

    `wins`, `ties`, `losses` and `undecided` count matches. `win_rate` counts ties as halves; `length_controlled`
    is the win rate at equal length. Both are `{"value", "n", "low", "high"}` with a 95% interval over prompts:
    several answers to one prompt are averaged first, since they are not independent. `p` tests the win rate against
    one half; it is None where nothing was decided.
    """
    decided = [m for m in matches if m.outcome is not None]
    prompts = by_prompt(decided)
    outcomes = [_average([_decided(m) for m in found]) for found in prompts.values()]
    lengths = [
        (_average([m.words_a for m in found]), _average([m.words_b for m in found]))
        for found in prompts.values()
    ]
    return {
        "wins": sum(m.outcome == 1.0 for m in decided),
        "ties": sum(m.outcome == 0.5 for m in decided),
        "losses": sum(m.outcome == 0.0 for m in decided),
        "undecided": len(matches) - len(decided),
        "win_rate": bounded_mean(outcomes),
        "p": away_from_half(outcomes),
        "length_controlled": length_controlled(outcomes, lengths),
    }


def by_prompt(matches: Iterable[Match]) -> dict[str, list[Match]]:
    """Matches by the prompt that was answered."""
    found: dict[str, list[Match]] = defaultdict(list)
    for match in matches:
        found[match.prompt].append(match)
    return dict(found)


def _decided(match: Match) -> float:
    assert match.outcome is not None
    return match.outcome


def _average(values: Sequence[float]) -> float:
    return sum(values) / len(values)
