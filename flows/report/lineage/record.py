"""Where a model comes from, as it stands in summary.json and in `charter lineage --json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from common.record import REST, Key, Record
from common.statistics import Share


@dataclass(frozen=True, kw_only=True)
class Source(Record):
    """A model from outside."""

    path: str
    digest: str


@dataclass(frozen=True, kw_only=True)
class TrainedLabels(Record):
    """Labels that were passed on to training: `soft` have a probability below 1, `by_people` a person's verdict."""

    labels: int
    soft: int
    hard: int
    statuses: Mapping[str, int]
    by_people: int


@dataclass(frozen=True, kw_only=True)
class DrawnPrinciple(Record):
    """How often the labels that trained drew a principle; the dimension is None where it is not known any more."""

    id: str
    dimension: str | None
    drawn: int


@dataclass(frozen=True, kw_only=True)
class PeopleCounts(Record):
    """Labels that a person judged: the judge's verdict confirmed, overridden, or given where the judge failed."""

    confirmed: int = 0
    overridden: int = 0
    supplied: int = 0


@dataclass(frozen=True, kw_only=True)
class LabelsExam(Record):
    """The newest exam of a judge, asked as it was for the labels."""

    passed: bool
    problems: tuple[str, ...]
    pairs: int
    source: str
    accuracy: Share
    flips: Share
    kappa: float


@dataclass(frozen=True, kw_only=True)
class LabelsJudge(Record):
    """Who judged the labels; `exam` is None where none was taken."""

    kind: str
    model: str
    revision: str
    build: str
    exam: LabelsExam | None


@dataclass(frozen=True, kw_only=True)
class LabelRecord(Record):
    """One labelling stage; `judges` is None where the ledger is not here, or does not hold the label set."""

    step: str
    label_set: str
    preferences: str
    pairs: int
    statuses: Mapping[str, int]
    admitted_statuses: tuple[str, ...]
    trained: TrainedLabels
    principles: tuple[DrawnPrinciple, ...]
    people: PeopleCounts
    judges: tuple[LabelsJudge, ...] | None


@dataclass(frozen=True, kw_only=True)
class RevisionRecord(Record):
    """One stage of critiques and revisions, with how often each principle was drawn."""

    step: str
    revised: int
    harmless_kept: int
    principles: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class RewardModelRecord(Record):
    """One stage of reward models: their digests, how labels were taken, and the metrics on held-out labels."""

    step: str
    models: Mapping[str, str]
    targets: str
    human_share: float | None
    held_out: float
    metrics: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class StepConstitution(Record):
    """The constitution that a step read, and which kind of its principles."""

    ref: str
    digest: str
    principle_kind: Annotated[str, Key("half")]
    kind_digest: Annotated[str, Key("half_digest")]
    more: Annotated[Mapping[str, Any], REST] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StepInput(Record):
    """What a step read, and the step that made it (None: from outside)."""

    path: str
    digest: str
    step: str | None


@dataclass(frozen=True, kw_only=True)
class StepRecord(Record):
    """One finished stage; `id` is its folder in the run directory."""

    id: str
    stage: str
    key: str
    created_at: str
    constitution: StepConstitution | None
    inputs: Mapping[str, StepInput]
    outputs: Mapping[str, str]
    metrics: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Lineage(Record):
    """What a stage's result came from; the last of `steps` is the stage itself, `gaps` are what cannot be followed."""

    step: str
    digests: Mapping[str, str]
    method: str | None
    judge_rewards: bool
    base: Source | None
    labels: tuple[LabelRecord, ...]
    revisions: tuple[RevisionRecord, ...]
    reward_models: tuple[RewardModelRecord, ...]
    steps: tuple[StepRecord, ...]
    gaps: tuple[str, ...]
