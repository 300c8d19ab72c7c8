"""One attempt at a run: its config, its constitution, and running stage after stage with reuse.

A stage whose key is unchanged is not run again. A stage that was interrupted is run again in the same folder,
where training finds its checkpoints and sampling its finished parts.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows.labelling.provenance import training_provenance
from flows.pipeline import isolation
from flows.runs.digests import digest_path
from flows.runs.directory import utc_now
from flows.runs.manifest import FileRecord, Manifest, versions
from flows.runs.memory import MemoryWatch
from flows.runs.progress import Reporter, Silent
from flows.runs.record import Outcome, RunRecord, describe_constitution
from flows.stages.contract import (
    Artifact,
    Inputs,
    Json,
    PrincipleKind,
    Result,
    Shards,
    Stage,
    StageInput,
    in_turn,
)
from flows.stages.registry import MADE_BY


@dataclass(frozen=True, kw_only=True)
class Session(RunRecord):
    """The record of an attempt with what runs its stages. `force` names stages to run again although nothing changed.

    `outputs` are those of the finished stages, by stage and name.
    """

    reporter: Reporter = field(default_factory=Silent)
    shards: Shards = in_turn
    force: frozenset[str] = frozenset()
    outputs: dict[tuple[str, str], Artifact] = field(default_factory=dict)

    def plan(self, stage: Stage) -> tuple[str, Mapping[str, Artifact], Json]:
        """The stage's key, inputs and settings. All stages before it must be finished."""
        inputs = stage.inputs(Inputs(config=self.config, outputs=self.outputs, makers=MADE_BY))
        settings = json.loads(json.dumps(stage.settings(self.config)))
        key = stage.key(
            seed=self.config.seed,
            settings=settings,
            inputs=inputs,
            principles=self._digest(stage.principle_kind),
        )
        return key, inputs, settings

    def execute(self, stage: Stage) -> Outcome:
        """Finish a stage: reuse its result, or run it.

        Raises FlowError for what the user can mend and StageFailed for a child process that ended badly.
        """
        stage.gate(self, self.reporter)
        key, inputs, settings = self.plan(stage)
        manifest = None if stage.name in self.force else self.directory.finished(stage.name, key)
        if manifest is not None:
            self.directory.fetch(stage.name, manifest, models=False)
            self.reporter.reused(stage.name, key)
            return self._take(stage, manifest, reused=True)
        if stage.name in self.force:
            self.directory.forget(stage.name, key)
        directory = self.directory.stage_path(stage.name, key)
        directory.mkdir(parents=True, exist_ok=True)
        self.reporter.started(stage.name)
        self._fetch(inputs)
        began = time.perf_counter()
        with MemoryWatch() as memory:
            result = self._run(stage, directory, settings, inputs, memory)
        manifest = Manifest(
            stage=stage.name,
            key=key,
            code_version=stage.version,
            created_at=utc_now(),
            seconds=round(time.perf_counter() - began, 3),
            config={"seed": self.config.seed, **settings},
            constitution=self._constitution_record(stage.principle_kind),
            inputs={n: FileRecord(path=self._relative(a.path), digest=a.digest) for n, a in inputs.items()},
            outputs={
                n: FileRecord(path=p, digest=digest_path(directory / p)) for n, p in result.outputs.items()
            },
            metrics=result.metrics,
            peak_memory=memory.peak(),
            versions=versions(),
        )
        manifest.write(directory)
        self.reporter.finished(stage.name, manifest.seconds, stage.summary(result.metrics))
        return self._take(stage, manifest, reused=False)

    def _run(
        self,
        stage: Stage,
        directory: Path,
        settings: Json,
        inputs: Mapping[str, Artifact],
        memory: MemoryWatch,
    ) -> Result:
        work = StageInput(
            stage=stage.name,
            directory=directory,
            run_directory=self.directory.path,
            seed=self.config.seed,
            settings=dict(settings),
            tuning=stage.tuning(self.config),
            inputs={name: artifact.path for name, artifact in inputs.items()},
            digests={name: artifact.digest for name, artifact in inputs.items()},
            constitution=self.constitution if stage.principle_kind else None,
            progress=lambda done, total, text: self.reporter.progress(stage.name, done, total, text),
            note_child=memory.note_child,
            shards=self.shards,
            provenance=training_provenance(self, stage),
        )
        if stage.isolated:
            # Servers batch by themselves; several processes would each start their own.
            several = stage.samples and self.config.sampling.kind == "in_process"
            return isolation.run_isolated(work, workers=self.config.launcher.samplers if several else 1)
        return stage.run(work)

    def _take(self, stage: Stage, manifest: Manifest, *, reused: bool) -> Outcome:
        directory = self.directory.stage_path(stage.name, manifest.key)
        self.directory.mirror(
            stage.name,
            manifest,
            lambda done, total, text: self.reporter.progress(stage.name, done, total, text),
        )
        for name, record in manifest.outputs.items():
            path = str(directory / record.path)
            self.outputs[(stage.name, name)] = Artifact(path=path, digest=record.digest)
        outcome = Outcome(stage=stage.name, directory=directory, manifest=manifest, reused=reused)
        self.outcomes[stage.name] = outcome
        self.directory.note_stage(self.attempt, stage.name, manifest, reused=reused)
        return outcome

    def _fetch(self, inputs: Mapping[str, Artifact]) -> None:
        """Have here what a stage reads of earlier ones."""
        for name, outcome in self.outcomes.items():
            if any(Path(a.path).is_relative_to(outcome.directory) for a in inputs.values()):
                self.directory.fetch(name, outcome.manifest, models=True)

    def _digest(self, kind: PrincipleKind | None) -> str | None:
        if kind is None:
            return None
        return (
            self.constitution.critique_digest if kind == "critique" else self.constitution.comparison_digest
        )

    def _constitution_record(self, kind: PrincipleKind | None) -> dict[str, Any] | None:
        if kind is None:
            return None
        record = describe_constitution(self.constitution)
        return {**record, "half": kind, "half_digest": self._digest(kind)}

    def _relative(self, path: str) -> str:
        try:
            return Path(path).relative_to(self.directory.path).as_posix()
        except ValueError:
            return path
