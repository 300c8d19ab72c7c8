"""summary.json: what a run came to, for programs. All of it is read back from manifests and evaluation.json."""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Self

from common.record import ABSENT, EMPTY, REST, Key, Record
from common.statistics import Estimate
from flows.evaluation.side_effects import SideEffects
from flows.report.costs import Costs
from flows.report.lineage.record import Lineage
from flows.report.over_optimisation import Watched
from flows.report.weights import WeightStep
from judges.audit import Agreement

if TYPE_CHECKING:
    from flows.pipeline.session import Session

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class ConstitutionName(Record):
    """Which constitution: an unpublished working file is marked as such."""

    ref: str
    name: Annotated[str | None, ABSENT] = None
    version: Annotated[str | None, ABSENT] = None
    published: bool
    digest: str


@dataclass(frozen=True, kw_only=True)
class ModelFigures(Record):
    """One model's answers to held-out prompts: their words, the reward model's score, and what gold says."""

    words: Estimate
    reward: Estimate
    gold: Annotated[Mapping[str, Estimate] | None, ABSENT] = None


@dataclass(frozen=True, kw_only=True)
class ExamSummary(Record):
    """The exam of the run's judge in a few figures, or the reason why there was none."""

    taken: bool
    reason: Annotated[str | None, ABSENT] = None
    passed: Annotated[bool | None, ABSENT] = None
    problems: Annotated[tuple[str, ...] | None, ABSENT] = None
    pairs: Annotated[int | None, ABSENT] = None
    source: Annotated[str | None, ABSENT] = None
    accuracy: Annotated[float | None, ABSENT] = None
    kappa: Annotated[float | None, ABSENT] = None
    more: Annotated[Mapping[str, Any], REST] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class AuditSummary(Agreement):
    """People beside the judge, and what their verdicts have against the labels."""

    problem: str | None


@dataclass(frozen=True, kw_only=True)
class JudgeFigures(Record):
    """The labels by status, and the judge against gold."""

    statuses: Annotated[Mapping[str, int] | None, ABSENT] = None
    trained_wordings: Annotated[Estimate | None, ABSENT] = None
    heldout_wordings: Annotated[Estimate | None, ABSENT] = None
    flips: Annotated[Estimate | None, ABSENT] = None
    opposite: Annotated[Estimate | None, ABSENT] = None
    gold_agreement: Annotated[Estimate | None, ABSENT] = None
    more: Annotated[Mapping[str, Any], REST] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RevisionFigures(Record):
    """Critiques and revisions against gold."""

    to_explained_refusal: Annotated[Estimate | None, ABSENT] = None
    benign_kept: Annotated[Estimate | None, ABSENT] = None
    more: Annotated[Mapping[str, Any], REST] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RewardModelFigures(Record):
    """The reward model's metrics, and its agreement with gold."""

    gold_agreement: Annotated[Estimate | None, ABSENT] = None
    more: Annotated[Mapping[str, Any], REST] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class CurvePoint(Record):
    """Means over the `n` answers of one step of reinforcement learning."""

    step: float
    n: int = 1
    proxy: float | None
    kl: float
    length: Annotated[float | None, ABSENT] = None
    gold: Annotated[float | None, ABSENT] = None


@dataclass(frozen=True, kw_only=True)
class RlFigures(Record):
    """The trainer's metrics, its curve, and what early stopping saw; `gold_model` says what people's model is worth."""

    curve: tuple[CurvePoint, ...] = ()
    watched: Annotated[tuple[Watched, ...], Key("brake")] = ()
    gold_model: Mapping[str, Any] = field(default_factory=dict)
    kept_step: Annotated[float | None, ABSENT] = None
    last_step: Annotated[float | None, ABSENT] = None
    stopped_early: Annotated[float | None, ABSENT] = None
    more: Annotated[Mapping[str, Any], REST] = field(default_factory=dict)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The figures of any version; `stopped_early` was once called `braked`."""
        old = {"stopped_early": data["braked"]} if "braked" in data else {}
        return super().from_json({**old, **{key: value for key, value in data.items() if key != "braked"}})


@dataclass(frozen=True, kw_only=True)
class StageFigures(Record):
    """One stage; a reused one shows what it once took."""

    key: str
    reused: bool
    seconds: float
    metrics: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Summary(Record):
    """The numbers of one attempt."""

    schema_version: int = SCHEMA_VERSION
    name: str
    attempt: int = 1
    seed: int
    constitution: ConstitutionName
    models: Mapping[str, ModelFigures]
    judge_exam: Annotated[ExamSummary | None, EMPTY] = None
    audit: Annotated[AuditSummary | None, EMPTY] = None
    judge: JudgeFigures
    revision: RevisionFigures
    reward_model: RewardModelFigures
    side_effects: Annotated[SideEffects | None, EMPTY] = None
    weights: tuple[WeightStep, ...] = ()
    lineage: Annotated[Lineage | None, EMPTY] = None
    costs: Annotated[Costs | None, EMPTY] = None
    rl: RlFigures
    stages: Mapping[str, StageFigures]
    seconds: float
    peak_memory_bytes: int


def build_summary(session: Session, *, seconds: float) -> Summary:
    """The numbers of one attempt. `seconds` is its wall time; reused stages show what they once took."""
    from flows.labelling.gates import audit_record, exam_record
    from flows.pipeline.session import describe_constitution

    lineage, evaluation = _lineage(session), _evaluation(session)
    exam, agreement = evaluation.get("exam", {}), evaluation.get("gold_agreement", {})
    return Summary.from_json(
        {
            "name": session.config.name,
            "attempt": session.attempt.number,
            "seed": session.config.seed,
            "constitution": describe_constitution(session.constitution),
            "models": evaluation.get("models", {}),
            "judge_exam": exam_record(session),
            "audit": audit_record(session),
            "judge": {**_metrics(session, "labels"), **exam.get("judge", {}), **_gold(agreement, "labels")},
            "revision": {**_metrics(session, "critique_revision"), **exam.get("revision", {})},
            "reward_model": {**_metrics(session, "reward_model"), **_gold(agreement, "reward_model")},
            "side_effects": evaluation.get("side_effects", {}),
            "weights": evaluation.get("weights", []),
            "lineage": lineage.to_json() if lineage else {},
            "costs": _costs(session, lineage),
            "rl": {
                **_metrics(session, "rl"),
                "curve": evaluation.get("rl_curve", []),
                "brake": _rows(session, "rl", "early_stopping") or _rows(session, "rl", "brake"),
                "gold_model": _metrics(session, "gold_model"),
            },
            "stages": {
                name: {
                    "key": outcome.manifest.key,
                    "reused": outcome.reused,
                    "seconds": outcome.manifest.seconds,
                    "metrics": outcome.manifest.metrics,
                }
                for name, outcome in session.outcomes.items()
            },
            "seconds": round(seconds, 3),
            "peak_memory_bytes": peak_memory(session),
        }
    )


def peak_memory(session: Session) -> int:
    """The largest resident size of the stages that this attempt ran, children included, in bytes."""
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    ran = [o.manifest.peak_memory.total_bytes for o in session.outcomes.values() if not o.reused]
    return max([own, *ran])


def _lineage(session: Session) -> Lineage | None:
    """Where the policy comes from; None before there is one."""
    from flows.labelling.gates import existing_ledger
    from flows.report.lineage import lineage

    outcome = session.outcomes.get("rl")
    if outcome is None:
        return None
    with existing_ledger(session.config) as ledger:
        return lineage(session.run.path, outcome.stage, outcome.manifest.key, ledger)


def _costs(session: Session, lineage: Lineage | None) -> Mapping[str, Any]:
    """Of the labels that the policy learnt from, over all rounds; without a policy, of those that there are."""
    from flows.runs.costs import label_costs

    stages = [record.step for record in lineage.labels] if lineage else []
    if not stages and (outcome := session.outcomes.get("labels")):
        stages = [outcome.directory.relative_to(session.run.path).as_posix()]
    return label_costs(session, stages)


def _metrics(session: Session, stage: str) -> dict[str, Any]:
    outcome = session.outcomes.get(stage)
    return dict(outcome.manifest.metrics) if outcome else {}


def _rows(session: Session, stage: str, output: str) -> list[dict[str, Any]]:
    """A stage's JSON lines; none where it has no such output."""
    from common.rows import read_rows

    outcome = session.outcomes.get(stage)
    if outcome is None or output not in outcome.manifest.outputs:
        return []
    return [row for _, row in read_rows(outcome.directory / outcome.manifest.outputs[output].path)]


def _gold(agreement: dict[str, Any], of: str) -> dict[str, Any]:
    return {"gold_agreement": agreement[of]} if of in agreement else {}


def _evaluation(session: Session) -> dict[str, Any]:
    outcome = session.outcomes.get("evaluate")
    if outcome is None:
        return {}
    path = outcome.directory / outcome.manifest.outputs["evaluation"].path
    return json.loads(path.read_text(encoding="utf-8"))
