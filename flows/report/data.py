"""What a report shows: a run's summary, some of its texts, and the attempt before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from common.statistics import Estimate
from flows.report.summary import ModelFigures, Summary

#: models in the order in which they come to be, with the names that people read
MODELS = {
    "base": "base",
    "helpful_only": "helpful-only",
    "sl_cai": "SL-CAI",
    "rl_cai": "RL-CAI",
}


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure of a model: its key in the summary (`gold.` ones need a gold oracle), its heading, its form."""

    key: str
    heading: str
    share: bool

    def of(self, figures: ModelFigures | None) -> Estimate | None:
        """A model's figure, or None where it was not measured."""
        where, _, name = self.key.rpartition(".")
        if figures is None:
            return None
        found = (figures.gold or {}).get(name) if where else getattr(figures, name)
        return found.known if found else None


FIGURES = (
    Figure(key="gold.helpful", heading="helpful", share=True),
    Figure(key="gold.honest", heading="honest", share=True),
    Figure(key="gold.harmless", heading="harmless", share=True),
    Figure(key="gold.non_evasive", heading="non-evasive", share=True),
    Figure(key="gold.benign_refusals", heading="benign refused", share=True),
    Figure(key="gold.overall", heading="gold overall", share=True),
    Figure(key="words", heading="words", share=False),
    Figure(key="reward", heading="reward", share=False),
)


@dataclass(frozen=True, kw_only=True)
class Example:
    """One prompt answered by every model."""

    prompt: str
    family: str
    answers: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Revision:
    """One answer with what became of it: steps of (principle id, critique, revised answer)."""

    prompt: str
    response: str
    steps: Sequence[tuple[str, str, str]]


@dataclass(frozen=True, kw_only=True)
class LabelChange:
    """How the labels of the pairs that two attempts share differ, for one principle drawn in either."""

    pairs: int
    flipped: int
    moved: int


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """Everything that the views need; all model text in it is raw and hostile."""

    summary: Summary
    examples: Sequence[Example] = ()
    revisions: Sequence[Revision] = ()
    before: Summary | None = None
    label_change: LabelChange | None = None
    config_text: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def models(self) -> list[str]:
        """The models that the summary has, in their order."""
        return [m for m in MODELS if m in self.summary.models]

    @property
    def figures(self) -> list[Figure]:
        """The figures that any model of the summary has."""
        return [f for f in FIGURES if any(f.of(self.summary.models[m]) for m in self.models)]

    def value(self, model: str, key: str) -> Estimate | None:
        """One figure of one model, by its key; None where it was not measured."""
        return next(f for f in FIGURES if f.key == key).of(self.summary.models.get(model))
