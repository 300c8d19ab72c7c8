"""The labels behind a policy: how many of which kind, which principles they drew, what people said, who judged."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from common.rows import read_rows
from constitution.snapshot import from_json
from flows.report.lineage.record import (
    DrawnPrinciple,
    LabelRecord,
    LabelsExam,
    LabelsJudge,
    PeopleCounts,
    TrainedLabels,
)
from flows.report.lineage.trace import Step, Trace
from judges import Ledger
from judges.audit.people import judged
from judges.errors import LedgerError
from judges.exam import exam_of_labels
from judges.ledger.reading import judges_of, label_set_content
from judges.records import JudgeIdentity


def label_steps(found: Trace) -> list[Step]:
    """The labelling stages whose preferences were trained on, oldest first."""
    learnt = {read.step for step in found.steps for read in step.reads if read.name.startswith("preferences")}
    return [step for step in found.steps if step.stage == "labels" and step.id in learnt]


def label_record(run: Path, found: Trace, step: Step, ledger: Ledger | None) -> LabelRecord:
    """One labelling stage: counts from its own files, the judge and its exam from the ledger.

    `trained` counts what the stage passed on to training; `people` compares people's last word with the judge's
    verdict over all labels.
    """
    metrics = step.manifest.metrics
    trained, principles = _trained(run, found, step)
    return LabelRecord(
        step=step.id,
        label_set=metrics["label_set"],
        preferences=step.manifest.outputs["preferences"].digest,
        pairs=metrics["pairs"],
        statuses=dict(metrics["statuses"]),
        admitted_statuses=tuple(step.manifest.config["statuses"]),
        trained=trained,
        principles=principles,
        people=_people(run, step),
        judges=_judges(ledger, metrics["label_set"]),
    )


def _trained(run: Path, found: Trace, step: Step) -> tuple[TrainedLabels, tuple[DrawnPrinciple, ...]]:
    """Counts over preferences.jsonl. Soft labels have a probability below 1; where every trainer rounds (targets:
    hard), all labels are hard and those of one half are left out."""
    constitution = from_json(json.loads(_output(run, step, "constitution").read_text(encoding="utf-8")))
    rounded = _targets(found, step) == ["hard"]
    statuses: Counter[str] = Counter()
    sources: Counter[str] = Counter()
    principles: Counter[str] = Counter()
    soft = 0
    for _, row in read_rows(_output(run, step, "preferences")):
        if rounded and row["p"] == 0.5:
            continue
        statuses[row["status"]] += 1
        sources[row["source"]] += 1
        principles.update(row["principles"])
        soft += row["p"] < 1.0 and not rounded
    labels = statuses.total()
    known = {p.id: p for p in constitution.comparison if p.enabled or p.id in principles}
    trained = TrainedLabels(
        labels=labels,
        soft=soft,
        hard=labels - soft,
        statuses=dict(statuses.most_common()),
        by_people=sources["human"],
    )
    names = sorted({*known, *principles}, key=lambda name: (-principles[name], name))
    return trained, tuple(
        DrawnPrinciple(
            id=name, dimension=known[name].dimension if name in known else None, drawn=principles[name]
        )
        for name in names
    )


def _targets(found: Trace, step: Step) -> list[str]:
    """How the trainers of these labels took them."""
    takers = [
        s for s in found.steps for r in s.reads if r.step == step.id and r.name.startswith("preferences")
    ]
    return sorted({s.manifest.config["knobs"].get("targets", "soft") for s in takers})


def _people(run: Path, step: Step) -> PeopleCounts:
    counts: Counter[str] = Counter()
    for _, row in read_rows(_output(run, step, "labels")):
        if row["person"] is not None:
            said = judged(row["status"], row["p"])
            kind = "supplied" if said is None else "confirmed" if said == row["person"] else "overridden"
            counts[kind] += 1
    return PeopleCounts(**counts)


def _judges(ledger: Ledger | None, label_set: str) -> tuple[LabelsJudge, ...] | None:
    if ledger is None:
        return None
    try:
        content = label_set_content(ledger, label_set)
    except LedgerError:
        return None
    return tuple(
        LabelsJudge(**asdict(judge), exam=_exam(ledger, judge, label_set))
        for judge in judges_of(ledger, content["judges"])
    )


def _exam(ledger: Ledger, judge: JudgeIdentity, label_set: str) -> LabelsExam | None:
    report = exam_of_labels(ledger, judge, label_set)
    if report is None:
        return None
    return LabelsExam(
        passed=report.passed,
        problems=tuple(report.problems),
        pairs=report.pairs,
        source=report.source,
        accuracy=report.accuracy,
        flips=report.flips,
        kappa=report.kappa,
    )


def _output(run: Path, step: Step, name: str) -> Path:
    return run / step.id / step.manifest.outputs[name].path
