"""From a request to a checked session, and through its stages: the pipeline without any orchestrator."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from common.files import write_atomically, write_json
from constitution import Constitution
from constitution import load as load_constitution
from constitution.snapshot import to_json
from flows.config import RunConfig, dump_config, load_config
from flows.config.forms import RunRequest
from flows.errors import FlowError
from flows.pipeline.preflight import preflight
from flows.pipeline.session import Session
from flows.report.data import ReportData
from flows.report.excerpts import gather
from flows.report.model_cards import write_cards
from flows.report.run import write_html
from flows.report.summary import build_summary
from flows.runs.digests import note_digests, remember_digests
from flows.runs.directory import RunDirectory
from flows.runs.progress import Reporter
from flows.runs.record import Outcome, describe_constitution
from flows.runs.store import RunStore
from flows.stages.contract import Shards, Stage, in_turn
from flows.stages.registry import NAMES, active


@contextmanager
def open_session(
    request: RunRequest, reporter: Reporter, *, shards: Shards = in_turn, checked: bool = False
) -> Iterator[Session]:
    """Check everything that the run will need, take its run directory, and note how the attempt ends.

    `checked` says that `preflight` has just been asked.

    Raises FlowError, ConstitutionError or JudgeError, before anything is spent.
    """
    config, constitution = resolve(request)
    digests = config.local_runs_dir / ".digests.json"
    remember_digests(digests)
    if not checked:
        preflight(config, constitution)
    note_digests(digests)
    store = RunStore(config.run_url) if config.run_url else None
    run = RunDirectory(config.run_directory, store)
    halves = {name: getattr(constitution, name) for name in ("critique_digest", "comparison_digest")}
    with run.working({**describe_constitution(constitution), **halves}) as attempt:
        history = run.history(attempt)
        write_atomically(history / "config.yaml", dump_config(config))
        write_json(history / "constitution.json", to_json(constitution))
        yield Session(
            config=config,
            constitution=constitution,
            directory=run,
            attempt=attempt,
            reporter=reporter,
            shards=shards,
            force=forced(config, request.from_stage),
        )


def resolve(request: RunRequest) -> tuple[RunConfig, Constitution]:
    """The configuration and the constitution that a request names, read and checked on their own."""
    changes = list(request.changes)
    if request.constitution:
        changes.append(f"constitution={request.constitution}")
    config = load_config(Path(request.config), changes)
    for field in ("from_stage", "to_stage"):
        name = getattr(request, field)
        if name is not None and name not in {stage.name for stage in active(config)}:
            raise FlowError(f"{field}: {name} is not part of this configuration")
    return config, load_constitution(config.constitution)


def forced(config: RunConfig, from_stage: str | None) -> frozenset[str]:
    """The stages to run again although nothing changed."""
    if from_stage is None:
        return frozenset()
    return frozenset(s.name for s in active(config) if NAMES.index(s.name) >= NAMES.index(from_stage))


def run_stages(
    session: Session, *, to_stage: str | None = None, execute: Callable[[Stage], Outcome] | None = None
) -> ReportData:
    """Run or reuse every stage in order, then write `summary.json` and `report.html`.

    `execute` runs one stage (by default `session.execute`); an orchestrator puts its own around it.
    """
    began = time.perf_counter()
    run_one = execute or session.execute
    for stage in active(session.config):
        run_one(stage)
        if stage.name == to_stage:
            break
    return finish(session, began=began)


def finish(session: Session, *, began: float | None = None) -> ReportData:
    """Write `summary.json`, `report.html` and the models' cards of the stages that the session has.

    `began` is when, on perf_counter; without it, the attempt's seconds are those of the stages that it ran.
    """
    ran = sum(o.manifest.seconds for o in session.outcomes.values() if not o.reused)
    seconds = ran if began is None else time.perf_counter() - began
    summary = build_summary(session, seconds=seconds)
    write_json(session.directory.history(session.attempt) / "summary.json", summary.to_json())
    write_json(session.directory.path / "summary.json", summary.to_json())
    write_cards(session, summary)
    data = gather(session, summary)
    write_html(data, session.directory.path / "report.html")
    return data


def run_one_stage(session: Session, name: str) -> Outcome:
    """Run a single stage on what earlier stages left.

    Raises FlowError when an earlier stage is not finished for this configuration.
    """
    for stage in active(session.config):
        if stage.name == name:
            return session.execute(stage)
        key, _, _ = session.plan(stage)
        if session.directory.finished(stage.name, key) is None:
            raise FlowError(
                f"stage {name} needs {stage.name}, which is not finished for this configuration; run it first"
            )
        session.execute(stage)
    raise FlowError(f"stage {name} is not part of this configuration")
