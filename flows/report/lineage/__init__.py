"""Where a model comes from: stages, labels, principles, judge and people, read from manifests and the ledger alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.config import load_config
from flows.errors import FlowError
from flows.report.lineage.labels import label_record, label_steps
from flows.report.lineage.record import (
    Lineage,
    RevisionRecord,
    RewardModelRecord,
    Source,
    StepConstitution,
    StepInput,
    StepRecord,
)
from flows.report.lineage.trace import Step, Trace, trace
from flows.runs.directory import RunDirectory
from flows.stages.contract import WITHOUT
from judges import Ledger

__all__ = ["Lineage", "Step", "Trace", "lineage", "lineage_of_run", "trace"]

_POLICY = "rl"


def lineage(run: Path, stage: str, key: str, ledger: Ledger | None) -> Lineage:
    """What the stage's result came from.

    Without the ledger the judge is unknown; all else is in the run directory. Raises FlowError when the stage is
    not finished.
    """
    found = trace(run, stage, key)
    last = found.last
    return Lineage(
        step=last.id,
        digests={name: record.digest for name, record in last.manifest.outputs.items()},
        method=last.manifest.config.get("method"),
        judge_rewards=bool((last.manifest.config.get("reward") or {}).get("judge")),
        base=_base(found),
        labels=tuple(label_record(run, found, step, ledger) for step in label_steps(found)),
        revisions=tuple(_revisions(step) for step in found.steps if step.stage == "critique_revision"),
        reward_models=tuple(_reward_model(step) for step in found.steps if step.stage == "reward_model"),
        steps=tuple(_record(step) for step in found.steps),
        gaps=found.gaps,
    )


def lineage_of_run(path: Path) -> Lineage:
    """The lineage of the policy that a run directory's latest attempt ended with.

    Raises FlowError for a folder that is no run's, and for a run without a policy.
    """
    run = RunDirectory(path)
    attempts = run.attempts()
    if not attempts:
        raise FlowError(f"{path}: is not a run's folder (it has no run.json)")
    latest = attempts[-1]
    key = latest.stages.get(_POLICY, {}).get("key")
    summary = run.history(latest) / "summary.json"
    if summary.is_file():
        # Of several rounds not the last one is kept but the last that gained.
        key = json.loads(summary.read_text(encoding="utf-8"))["stages"].get(_POLICY, {}).get("key", key)
    if key is None:
        raise FlowError(
            f"{path}: attempt {latest.number} of this run has no policy: stage rl is not finished"
        )
    with _ledger(run) as ledger:
        return lineage(path, _POLICY, key, ledger)


@contextmanager
def _ledger(run: RunDirectory) -> Iterator[Ledger | None]:
    """The ledger of a run directory, wherever the directory lies now; None where there is none."""
    url = load_config(run.history(run.attempts()[-1]) / "config.yaml").labels.ledger
    if url is None:
        own = run.path / "ledger.db"
        url = f"sqlite:///{own}" if own.is_file() else None
    if url is None:
        yield None
        return
    with Ledger.open(url) as ledger:
        yield ledger


def _base(found: Trace) -> Source | None:
    """The model from outside that the chain of `model` inputs begins with; None where it cannot be followed."""
    step = found.last
    while True:
        read = next((r for r in step.reads if r.name == "model"), None)
        if read is None or (read.step is None and any(step.id in gap for gap in found.gaps)):
            return None
        if read.step is None:
            return Source(path=read.path, digest=read.digest)
        step = found.by_id(read.step)


def _revisions(step: Step) -> RevisionRecord:
    metrics = step.manifest.metrics
    return RevisionRecord(
        step=step.id, **{name: metrics[name] for name in ("revised", "harmless_kept", "principles")}
    )


def _reward_model(step: Step) -> RewardModelRecord:
    config = step.manifest.config
    return RewardModelRecord(
        step=step.id,
        models={name: record.digest for name, record in step.manifest.outputs.items()},
        targets=config["knobs"].get("targets", "soft"),
        human_share=config.get("human_share"),
        held_out=config["knobs"].get("held_out", 0.0),
        metrics={name: value for name, value in step.manifest.metrics.items() if name.startswith("eval_")},
    )


def _record(step: Step) -> StepRecord:
    made = step.manifest
    return StepRecord(
        id=step.id,
        stage=step.stage,
        key=made.key,
        created_at=made.created_at,
        constitution=StepConstitution.from_json(made.constitution) if made.constitution else None,
        inputs={
            r.name: StepInput(path=r.path, digest=r.digest, step=r.step)
            for r in step.reads
            if not r.name.startswith(WITHOUT)
        },
        outputs={name: record.digest for name, record in made.outputs.items()},
        metrics={k: v for k, v in made.metrics.items() if isinstance(v, int | float | str)},
    )
