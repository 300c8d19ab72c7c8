"""What a report shows, gathered from a run directory: the summary, some texts, and the attempt before."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.rows import read_rows
from constitution import Constitution
from flows.config import dump_config
from flows.report.data import Example, LabelChange, ReportData, Revision
from flows.report.summary import Summary
from flows.runs.directory import Attempt
from flows.runs.manifest import versions
from flows.snapshot import from_json

if TYPE_CHECKING:
    from flows.pipeline.session import Session

_EXAMPLES = 12
_REVISIONS = 6
_MOVED = 0.05


def gather(session: Session, summary: Summary) -> ReportData:
    """Everything that the views need of a session whose stages are done."""
    before = _attempt_before(session)
    return ReportData(
        summary=summary,
        examples=_examples(session),
        revisions=_revisions(session),
        before=_summary_of(session, before) if before else None,
        label_change=label_change(session, before) if before else None,
        config_text=dump_config(session.config),
        versions=versions(),
    )


def _examples(session: Session) -> list[Example]:
    rows = _spread(_rows(session, "evaluate", "answers"), _EXAMPLES)
    return [
        Example(
            prompt=row["prompt"][-1]["content"],
            family=str(row["meta"].get("family", "")),
            answers={role: found["response"] for role, found in row["models"].items()},
        )
        for row in rows
    ]


def _revisions(session: Session) -> list[Revision]:
    chains = [c for c in _rows(session, "critique_revision", "chains") if c["steps"] and c["status"] == "ok"]
    return [
        Revision(
            prompt=chain["prompt"][-1]["content"],
            response=chain["response"],
            steps=[(s["principle"], s["critique"], s["revision"]) for s in chain["steps"]],
        )
        for chain in _spread(chains, _REVISIONS)
    ]


def _attempt_before(session: Session) -> Attempt | None:
    """The latest finished attempt under another constitution, whose result this one is compared with."""
    digest = session.constitution.digest
    for attempt in reversed(session.run.attempts()):
        other = attempt.number < session.attempt.number and attempt.constitution["digest"] != digest
        if other and attempt.status == "finished" and _summary_of(session, attempt):
            return attempt
    return None


def constitution_before(session: Session) -> Constitution | None:
    """The constitution of the attempt that this one is compared with."""
    attempt = _attempt_before(session)
    path = session.run.history(attempt) / "constitution.json" if attempt else None
    return from_json(json.loads(path.read_text(encoding="utf-8"))) if path and path.exists() else None


def _summary_of(session: Session, attempt: Attempt) -> Summary | None:
    path = session.run.history(attempt) / "summary.json"
    return Summary.from_json(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def label_change(session: Session, before: Attempt) -> LabelChange | None:
    """How labels of pairs that both attempts have differ; None when they share none."""
    if "labels" not in before.stages or "labels" not in session.outcomes:
        return None
    path = session.run.path / "labels" / before.stages["labels"]["key"] / "labels.jsonl"
    if not path.exists():
        return None
    old = {row["pair_id"]: row["p"] for _, row in read_rows(path)}
    shared = [
        (old[row["pair_id"]], row["p"])
        for row in _rows(session, "labels", "labels")
        if row["pair_id"] in old and None not in (old[row["pair_id"]], row["p"])
    ]
    if not shared:
        return None
    return LabelChange(
        pairs=len(shared),
        flipped=sum((p > 0.5) != (q > 0.5) for p, q in shared),
        moved=sum(abs(p - q) > _MOVED for p, q in shared),
    )


def _rows(session: Session, stage: str, output: str) -> list[dict[str, Any]]:
    outcome = session.outcomes.get(stage)
    if outcome is None:
        return []
    path: Path = outcome.directory / outcome.manifest.outputs[output].path
    return [row for _, row in read_rows(path)]


def _spread(rows: Iterable[dict[str, Any]], n: int) -> list[dict[str, Any]]:
    """`n` rows, family by family in turn where the prompts have families."""
    families: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        families.setdefault(str(row["meta"].get("family", "")), []).append(row)
    picked: list[dict[str, Any]] = []
    while len(picked) < n and any(families.values()):
        picked += [family.pop(0) for family in families.values() if family]
    return picked[:n]
