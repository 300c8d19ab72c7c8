"""What a new constitution makes stale among a run's labels, and asking again for just that."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from common.rows import read_rows
from constitution import Constitution
from constitution.plan import Plan
from constitution.plan import plan as make_plan
from constitution.snapshot import from_json
from flows.errors import FlowError
from flows.labelling.ledger import ledger_of
from flows.pipeline.session import Session
from flows.report.excerpts import label_change
from flows.runs.directory import Attempt
from flows.runs.record import Outcome
from flows.stages import labels
from flows.stages.contract import Stage
from flows.stages.registry import active
from judges import Ledger
from judges.ledger.statistics import PlanStatistics


@dataclass(frozen=True, kw_only=True)
class Staleness:
    """What the run's labels were made under, and the plan of going from there to the session's constitution."""

    before: Constitution
    plan: Plan


def relabel(
    session: Session,
    *,
    execute: Callable[[Session, Stage], Outcome],
    on_plan: Callable[[Staleness], None],
) -> str:
    """Plan, tell it to `on_plan`, then ask the judge for what is stale; returns the result in one line.

    The pairs are those that the run has: where the new constitution changes critique principles too, making new
    revisions and new pairs is the whole run's business, and the line says so.

    Raises FlowError when the pairs are not finished for this configuration.
    """
    new = session.constitution
    labelled = _labelled(session)
    if labelled is None:
        return f"{new.ref}: {session.config.name} has no labels yet, so none is stale"
    attempt, before = labelled
    if before.comparison_digest == new.comparison_digest:
        more = "" if before.critique_digest == new.critique_digest else _critique_note(new)
        return f"{new.ref}: asks the judge what {before.ref} asks; no label is stale{more}"
    now = _with_pairs(session)
    on_plan(Staleness(before=before, plan=_plan(now, before)))
    metrics = execute(now, labels.STAGE).manifest.metrics
    change = label_change(now, attempt)
    turned = "" if change is None else f"; {change.flipped} of {change.pairs} labels changed sides"
    more = "" if before.critique_digest == new.critique_digest else _critique_note(new)
    return (
        f"{new.ref} after {before.ref}: {metrics['pairs'] - metrics['labels_reused']} of {metrics['pairs']} labels "
        f"were stale, {metrics['asked']} judgements asked{turned}{more}"
    )


def _critique_note(new: Constitution) -> str:
    return f"; its critique principles changed too: `charter run --constitution {new.ref}` makes new pairs"


def _earlier(session: Session) -> Iterator[tuple[Attempt, Constitution]]:
    """Earlier attempts with their constitutions, newest first."""
    for attempt in reversed(session.directory.attempts()):
        path = session.directory.history(attempt) / "constitution.json"
        if attempt.number < session.attempt.number and path.exists():
            yield attempt, from_json(json.loads(path.read_text(encoding="utf-8")))


def _labelled(session: Session) -> tuple[Attempt, Constitution] | None:
    """The latest attempt that has labels, with its constitution."""
    return next((found for found in _earlier(session) if "labels" in found[0].stages), None)


def _with_pairs(session: Session) -> Session:
    """The session with the stages before the labels: those of this constitution, or else the run's latest."""
    missing = labels.STAGE.name
    for constitution in [session.constitution, *(found for _, found in _earlier(session))]:
        trial = replace(session, constitution=constitution, outputs={}, outcomes={})
        for stage in active(session.config):
            if stage.name == labels.STAGE.name:
                return replace(trial, constitution=session.constitution)
            key, _, _ = trial.plan(stage)
            if session.directory.finished(stage.name, key) is None:
                missing = stage.name
                break
            trial.execute(stage)
    raise FlowError(
        f"stage labels needs {missing}, which is not finished for this configuration; run it first"
    )


def _plan(session: Session, before: Constitution) -> Plan:
    config = session.config
    pairs = session.outcomes["pairs"]
    rows = read_rows(pairs.directory / pairs.manifest.outputs["pairs"].path)
    with Ledger.open(ledger_of(config)) as ledger:
        return make_plan(
            before,
            session.constitution,
            pair_ids=[str(row["id"]) for _, row in rows],
            seed=config.seed,
            n=config.labels.principles,
            statistics=PlanStatistics(ledger),
        )
