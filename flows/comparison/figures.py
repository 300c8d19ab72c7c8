"""What a comparison of models comes to, as comparison.json holds it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from common.record import ABSENT, EMPTY, Record
from common.statistics import Estimate
from flows.comparison.matches import OVERALL
from flows.comparison.models import ComparedModel
from flows.evaluation.ratings import Ratings
from flows.evaluation.reference_metrics import ReferenceMetrics
from flows.evaluation.side_effects import SideEffects
from flows.evaluation.win_rates import HeadToHead, LengthControlled, Standings
from flows.report.summary import ConstitutionName
from judges.records import JudgeIdentity


@dataclass(frozen=True, kw_only=True)
class PromptFigures(Record):
    """The file, how many of its prompts, how many answers each, and how many were too long for one of the models."""

    path: str
    n: int
    samples: int
    too_long: int


@dataclass(frozen=True, kw_only=True)
class SamplingFigures(Record):
    """How answers were drawn."""

    temperature: float
    top_p: float
    max_new_tokens: int
    dtype: str
    seed: int


@dataclass(frozen=True, kw_only=True)
class AnswerFigures(Record):
    """What can be said of one model's answers without the others."""

    words: Estimate
    truncated: int
    empty: int
    references: Annotated[ReferenceMetrics | None, EMPTY]
    gold: Annotated[Mapping[str, Estimate] | None, ABSENT] = None


@dataclass(frozen=True, kw_only=True)
class ShownPair(Record):
    """Two answers to one prompt, whose winner is named with the judge's probabilities; all texts are hostile."""

    winner: str
    prompt: str
    a: str
    b: str
    p: float
    p_ab: float
    p_ba: float


@dataclass(frozen=True, kw_only=True)
class PrincipleFigures(Record):
    """Both models under one comparison principle, what an edit did to it (`mark`), and examples.

    `p_adjusted` and `favours` are those of `flows.evaluation.win_rates.by_principle`.
    """

    id: str
    dimension: str
    question: str
    question_before: str | None
    mark: str
    change: str
    statuses: Mapping[str, int]
    wins: int
    ties: int
    losses: int
    undecided: int
    win_rate: Estimate
    p: float | None
    length_controlled: LengthControlled
    p_adjusted: float | None
    favours: str | None
    examples: tuple[ShownPair, ...]


@dataclass(frozen=True, kw_only=True)
class ByPrinciple(Record):
    """Two models principle by principle; `before` is the constitution behind the first, where it is known."""

    before: ConstitutionName | None
    after: ConstitutionName
    also_edited: tuple[str, ...]
    principles: tuple[PrincipleFigures, ...]


@dataclass(frozen=True, kw_only=True)
class ComparisonFigures(Record):
    """All figures of a comparison; `dimensions` holds the standings by part of the constitution, all of it first."""

    schema_version: int = 1
    models: tuple[ComparedModel, ...]
    prompts: PromptFigures
    constitution: ConstitutionName
    judge: JudgeIdentity
    sampling: SamplingFigures
    statuses: Mapping[str, Mapping[str, int]]
    asked: int
    ratings: Ratings | None
    dimensions: Mapping[str, Standings]
    answers: Mapping[str, AnswerFigures]
    side_effects: SideEffects
    by_principle: Annotated[ByPrinciple | None, ABSENT] = None

    @property
    def names(self) -> list[str]:
        """The models, in the order asked for."""
        return [model.name for model in self.models]

    @property
    def pairs(self) -> Sequence[HeadToHead]:
        """Every two models by all principles together."""
        return self.dimensions[OVERALL].pairs
