"""The record of one attempt at a run: its config, its constitution, its folder, and the stages that are finished.

What runs the stages is `flows.pipeline.session.Session`; gates, summary, model cards and lineage need the record alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.rows import read_rows
from constitution import Constitution
from flows.config import RunConfig
from flows.runs.directory import Attempt, RunDirectory
from flows.runs.manifest import Manifest


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A stage that is finished, by this attempt or by an earlier one."""

    stage: str
    directory: Path
    manifest: Manifest
    reused: bool

    def path(self, output: str) -> Path:
        """Where an output lies."""
        return self.directory / self.manifest.outputs[output].path


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What is known of one attempt; `outcomes` grows, stage after stage."""

    config: RunConfig
    constitution: Constitution
    directory: RunDirectory
    attempt: Attempt
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    def metrics(self, stage: str) -> Mapping[str, Any]:
        """The metrics of a finished stage; empty for one that is not."""
        outcome = self.outcomes.get(stage)
        return outcome.manifest.metrics if outcome else {}

    def rows(self, stage: str, output: str) -> list[dict[str, Any]]:
        """The rows of a stage's output; none for a stage that is not finished, or has no such output."""
        outcome = self.outcomes.get(stage)
        if outcome is None or output not in outcome.manifest.outputs:
            return []
        return [row for _, row in read_rows(outcome.path(output))]

    def data(self, stage: str, output: str) -> dict[str, Any]:
        """The JSON object of a stage's output; empty for a stage that is not finished."""
        outcome = self.outcomes.get(stage)
        return {} if outcome is None else json.loads(outcome.path(output).read_text(encoding="utf-8"))


def describe_constitution(constitution: Constitution) -> dict[str, Any]:
    """What records say about a constitution: an unpublished working file is marked as such."""
    return {
        "ref": constitution.ref,
        "name": constitution.name,
        "version": constitution.version,
        "published": constitution.published,
        "digest": constitution.digest,
    }
