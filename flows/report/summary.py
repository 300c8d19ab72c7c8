"""summary.json: what a run came to, for programs. All of it is read back from manifests and evaluation.json."""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from common.record import ABSENT, EMPTY, REST, Record
from common.statistics import Estimate
from flows.evaluation.side_effects import SideEffects
from flows.labelling.ledger import existing_ledger, label_costs
from flows.labelling.provenance import AuditSummary, ExamSummary, audit_record, exam_record
from flows.report.costs import Costs
from flows.report.lineage import Lineage, lineage
from flows.report.over_optimisation import RlFigures
from flows.report.weights import WeightStep
from flows.runs.record import RunRecord, describe_constitution

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
class TextFigures(Record):
    """Texts of one kind that the stages drew: how many, their tokens, seconds of all processes together."""

    texts: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0


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
    texts: Mapping[str, TextFigures] = field(default_factory=dict)
    rl: RlFigures
    stages: Mapping[str, StageFigures]
    seconds: float
    peak_memory_bytes: int


def build_summary(record: RunRecord, *, seconds: float) -> Summary:
    """The numbers of one attempt. `seconds` is its wall time; reused stages show what they once took."""
    origin, evaluation = _lineage(record), record.data("evaluate", "evaluation")
    oracle, agreement = evaluation.get("exam", {}), evaluation.get("gold_agreement", {})
    return Summary.from_json(
        {
            "name": record.config.name,
            "attempt": record.attempt.number,
            "seed": record.config.seed,
            "constitution": describe_constitution(record.constitution),
            "models": evaluation.get("models", {}),
            "judge_exam": exam.to_json() if (exam := exam_record(record)) else {},
            "audit": audit.to_json() if (audit := audit_record(record)) else {},
            "judge": {**record.metrics("labels"), **oracle.get("judge", {}), **_gold(agreement, "labels")},
            "revision": {**record.metrics("critique_revision"), **oracle.get("revision", {})},
            "reward_model": {**record.metrics("reward_model"), **_gold(agreement, "reward_model")},
            "side_effects": evaluation.get("side_effects", {}),
            "weights": evaluation.get("weights", []),
            "lineage": origin.to_json() if origin else {},
            "costs": _costs(record, origin),
            "texts": _texts(record),
            "rl": {
                **record.metrics("rl"),
                "curve": evaluation.get("rl_curve", []),
                "brake": record.rows("rl", "early_stopping") or record.rows("rl", "brake"),
                "gold_model": record.metrics("gold_model"),
            },
            "stages": {
                name: {
                    "key": outcome.manifest.key,
                    "reused": outcome.reused,
                    "seconds": outcome.manifest.seconds,
                    "metrics": outcome.manifest.metrics,
                }
                for name, outcome in record.outcomes.items()
            },
            "seconds": round(seconds, 3),
            "peak_memory_bytes": peak_memory(record),
        }
    )


def peak_memory(record: RunRecord) -> int:
    """The largest resident size of the stages that this attempt ran, children included, in bytes."""
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    ran = [o.manifest.peak_memory.total_bytes for o in record.outcomes.values() if not o.reused]
    return max([own, *ran])


def _lineage(record: RunRecord) -> Lineage | None:
    """Where the policy comes from; None before there is one."""
    outcome = record.outcomes.get("rl")
    if outcome is None:
        return None
    with existing_ledger(record.config) as ledger:
        return lineage(record.directory.path, outcome.stage, outcome.manifest.key, ledger)


def _texts(record: RunRecord) -> dict[str, dict[str, float]]:
    """By kind, over all stages; a reused stage shows what it once took."""
    found: dict[str, dict[str, float]] = {}
    for outcome in record.outcomes.values():
        for kind, figures in outcome.manifest.metrics.get("texts", {}).items():
            so_far = found.setdefault(kind, {})
            for name, value in figures.items():
                so_far[name] = round(so_far.get(name, 0) + value, 3)
    return found


def _costs(record: RunRecord, origin: Lineage | None) -> Mapping[str, Any]:
    """Of the labels that the policy learnt from, over all rounds; without a policy, of those that there are."""
    stages = [labels.step for labels in origin.labels] if origin else []
    if not stages and (outcome := record.outcomes.get("labels")):
        stages = [outcome.directory.relative_to(record.directory.path).as_posix()]
    return label_costs(record, stages)


def _gold(agreement: dict[str, Any], of: str) -> dict[str, Any]:
    return {"gold_agreement": agreement[of]} if of in agreement else {}
