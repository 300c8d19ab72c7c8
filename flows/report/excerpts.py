"""What a report shows, gathered from a run directory: the summary, some texts, and the attempt before."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from common.rows import read_rows
from constitution import Constitution
from constitution.snapshot import from_json
from flows.config import dump_config
from flows.report.data import Example, LabelChange, ReportData, Revision
from flows.report.summary import Summary
from flows.runs.directory import Attempt
from flows.runs.manifest import versions
from flows.runs.record import RunRecord

_EXAMPLES = 12
_REVISIONS = 6
_MOVED = 0.05


def gather(record: RunRecord, summary: Summary) -> ReportData:
    """Everything that the views need of a record whose stages are done."""
    before = _attempt_before(record)
    return ReportData(
        summary=summary,
        examples=_examples(record),
        revisions=_revisions(record),
        before=_summary_of(record, before) if before else None,
        label_change=label_change(record, before) if before else None,
        config_text=dump_config(record.config),
        versions=versions(),
    )


def _examples(record: RunRecord) -> list[Example]:
    rows = _spread(record.rows("evaluate", "answers"), _EXAMPLES)
    return [
        Example(
            prompt=row["prompt"][-1]["content"],
            family=str(row["meta"].get("family", "")),
            answers={role: found["response"] for role, found in row["models"].items()},
        )
        for row in rows
    ]


def _revisions(record: RunRecord) -> list[Revision]:
    chains = [c for c in record.rows("critique_revision", "chains") if c["steps"] and c["status"] == "ok"]
    return [
        Revision(
            prompt=chain["prompt"][-1]["content"],
            response=chain["response"],
            steps=[(s["principle"], s["critique"], s["revision"]) for s in chain["steps"]],
        )
        for chain in _spread(chains, _REVISIONS)
    ]


def _attempt_before(record: RunRecord) -> Attempt | None:
    """The latest finished attempt under another constitution, whose result this one is compared with."""
    digest = record.constitution.digest
    for attempt in reversed(record.directory.attempts()):
        other = attempt.number < record.attempt.number and attempt.constitution["digest"] != digest
        if other and attempt.status == "finished" and _summary_of(record, attempt):
            return attempt
    return None


def constitution_before(record: RunRecord) -> Constitution | None:
    """The constitution of the attempt that this one is compared with."""
    attempt = _attempt_before(record)
    path = record.directory.history(attempt) / "constitution.json" if attempt else None
    return from_json(json.loads(path.read_text(encoding="utf-8"))) if path and path.exists() else None


def _summary_of(record: RunRecord, attempt: Attempt) -> Summary | None:
    path = record.directory.history(attempt) / "summary.json"
    return Summary.from_json(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def label_change(record: RunRecord, before: Attempt) -> LabelChange | None:
    """How labels of pairs that both attempts have differ; None when they share none."""
    if "labels" not in before.stages or "labels" not in record.outcomes:
        return None
    path = record.directory.path / "labels" / before.stages["labels"]["key"] / "labels.jsonl"
    if not path.exists():
        return None
    old = {row["pair_id"]: row["p"] for _, row in read_rows(path)}
    shared = [
        (old[row["pair_id"]], row["p"])
        for row in record.rows("labels", "labels")
        if row["pair_id"] in old and None not in (old[row["pair_id"]], row["p"])
    ]
    if not shared:
        return None
    return LabelChange(
        pairs=len(shared),
        flipped=sum((p > 0.5) != (q > 0.5) for p, q in shared),
        moved=sum(abs(p - q) > _MOVED for p, q in shared),
    )


def _spread(rows: Iterable[dict[str, Any]], n: int) -> list[dict[str, Any]]:
    """`n` rows, family by family in turn where the prompts have families."""
    families: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        families.setdefault(str(row["meta"].get("family", "")), []).append(row)
    picked: list[dict[str, Any]] = []
    while len(picked) < n and any(families.values()):
        picked += [family.pop(0) for family in families.values() if family]
    return picked[:n]
