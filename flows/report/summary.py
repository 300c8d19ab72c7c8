"""summary.json: what a run came to, for programs. All of it is read back from manifests and evaluation.json."""

from __future__ import annotations

import json
import resource
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flows.pipeline.session import Session

SCHEMA_VERSION = 1


def build_summary(session: Session, *, seconds: float) -> dict[str, Any]:
    """The numbers of one attempt. `seconds` is its wall time; reused stages show what they once took."""
    from flows.labelling.gates import audit_record, exam_record
    from flows.pipeline.session import describe_constitution

    lineage = _lineage(session)

    outcomes = session.outcomes
    evaluation = _evaluation(session)
    exam, agreement = evaluation.get("exam", {}), evaluation.get("gold_agreement", {})
    summary: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
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
        "lineage": lineage,
        "costs": _costs(session, lineage),
        "rl": {
            **_metrics(session, "rl"),
            "curve": evaluation.get("rl_curve", []),
            "brake": _rows(session, "rl", "brake"),
            "gold_model": _metrics(session, "gold_model"),
        },
        "stages": {
            name: {
                "key": outcome.manifest.key,
                "reused": outcome.reused,
                "seconds": outcome.manifest.seconds,
                "metrics": outcome.manifest.metrics,
            }
            for name, outcome in outcomes.items()
        },
        "seconds": round(seconds, 3),
        "peak_memory_bytes": peak_memory(session),
    }
    return summary


def peak_memory(session: Session) -> int:
    """The largest resident size of the stages that this attempt ran, children included, in bytes."""
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    ran = [o.manifest.peak_memory.total_bytes for o in session.outcomes.values() if not o.reused]
    return max([own, *ran])


def _lineage(session: Session) -> dict[str, Any]:
    """Where the policy comes from; empty before there is one."""
    from flows.labelling.gates import existing_ledger
    from flows.report.lineage import lineage

    outcome = session.outcomes.get("rl")
    if outcome is None:
        return {}
    with existing_ledger(session.config) as ledger:
        return lineage(session.run.path, outcome.stage, outcome.manifest.key, ledger)


def _costs(session: Session, lineage: dict[str, Any]) -> dict[str, Any]:
    """Of the labels that the policy learnt from, over all rounds; without a policy, of those that there are."""
    from flows.runs.costs import label_costs

    stages = [record["step"] for record in lineage.get("labels", ())]
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
