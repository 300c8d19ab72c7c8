"""The labels behind a policy: how many of which kind, which principles they drew, what people said, who judged."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common.rows import read_rows
from constitution import Constitution
from flows.report.lineage.trace import Step, Trace
from flows.snapshot import from_json
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


def label_record(run: Path, found: Trace, step: Step, ledger: Ledger | None) -> dict[str, Any]:
    """One labelling stage: counts from its own files, the judge and its exam from the ledger.

    `trained` counts what the stage passed on to training; `people` compares people's last word with the judge's
    verdict over all labels. Without the ledger, or where it does not hold the label set, `judges` is None.
    """
    constitution = from_json(json.loads(_output(run, step, "constitution").read_text(encoding="utf-8")))
    metrics = step.manifest.metrics
    return {
        "step": step.id,
        "label_set": metrics["label_set"],
        "preferences": step.manifest.outputs["preferences"].digest,
        "pairs": metrics["pairs"],
        "statuses": dict(metrics["statuses"]),
        "admitted_statuses": list(step.manifest.config["statuses"]),
        **_trained(run, found, step, constitution),
        "people": _people(run, step),
        "judges": _judges(ledger, metrics["label_set"]),
    }


def _trained(run: Path, found: Trace, step: Step, constitution: Constitution) -> dict[str, Any]:
    """Counts over preferences.jsonl. Soft labels have a probability below 1; where every trainer rounds (targets:
    hard), all labels are hard and those of one half are left out."""
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
    return {
        "trained": {
            "labels": labels,
            "soft": soft,
            "hard": labels - soft,
            "statuses": dict(statuses.most_common()),
            "by_people": sources["human"],
        },
        "principles": [
            {
                "id": name,
                "dimension": known[name].dimension if name in known else None,
                "drawn": principles[name],
            }
            for name in sorted({*known, *principles}, key=lambda name: (-principles[name], name))
        ],
    }


def _targets(found: Trace, step: Step) -> list[str]:
    """How the trainers of these labels took them."""
    takers = [
        s for s in found.steps for r in s.reads if r.step == step.id and r.name.startswith("preferences")
    ]
    return sorted({s.manifest.config["knobs"].get("targets", "soft") for s in takers})


def _people(run: Path, step: Step) -> dict[str, int]:
    """Labels that a person judged: confirmed the judge's verdict, overrode it, or gave one where the judge failed."""
    counts = Counter({"confirmed": 0, "overridden": 0, "supplied": 0})
    for _, row in read_rows(_output(run, step, "labels")):
        if row["person"] is not None:
            said = judged(row["status"], row["p"])
            counts[
                "supplied" if said is None else "confirmed" if said == row["person"] else "overridden"
            ] += 1
    return dict(counts)


def _judges(ledger: Ledger | None, label_set: str) -> list[dict[str, Any]] | None:
    if ledger is None:
        return None
    try:
        content = label_set_content(ledger, label_set)
    except LedgerError:
        return None
    return [
        {**asdict(judge), "exam": _exam(ledger, judge, label_set)}
        for judge in judges_of(ledger, content["judges"])
    ]


def _exam(ledger: Ledger, judge: JudgeIdentity, label_set: str) -> dict[str, Any] | None:
    """The newest exam of this judge, asked as for these labels; None where none was taken."""
    report = exam_of_labels(ledger, judge, label_set)
    if report is None:
        return None
    return {
        "passed": report.passed,
        "problems": report.problems,
        "pairs": report.pairs,
        "source": report.source,
        "accuracy": asdict(report.accuracy),
        "flips": asdict(report.flips),
        "kappa": report.kappa,
    }


def _output(run: Path, step: Step, name: str) -> Path:
    return run / step.id / step.manifest.outputs[name].path
