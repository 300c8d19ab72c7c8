"""Models that take part in a comparison: folders, hub ids, and what the attempts at a run made in its roles."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.record import Record
from constitution import Constitution
from constitution.snapshot import from_json
from flows.config import RunConfig, load_config
from flows.errors import FlowError
from flows.pipeline.preflight_models import check_model
from flows.runs.digests import model_digest
from flows.runs.directory import Attempt, RunDirectory
from flows.runs.manifest import Manifest
from flows.stages.registry import MADE_BY

# Roles that a run's folder gives a model to: the stage that makes it, or None where the configuration names it.
ROLES = {"base": None, **{role: stage for role, stage in MADE_BY.items() if role != "reward_model"}}
_ROLE = re.compile(r"(?P<role>\w+)(?:@(?P<attempt>[1-9]\d{0,5}))?", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run whose models take part: its latest results, or those of one attempt."""

    directory: RunDirectory
    attempt: Attempt
    latest: bool
    config: RunConfig
    constitution: Constitution

    @classmethod
    def of(cls, path: Path, number: int | None = None) -> Run:
        """The run in a folder, at its latest attempt or the one of that number. Raises FlowError."""
        directory = RunDirectory(path)
        attempts = directory.attempts()
        if not attempts:
            raise FlowError(f"{path}: is not a run's folder (it has no run.json)")
        if number is not None and number > len(attempts):
            raise FlowError(f"{path}: has no attempt {number}; the latest is {len(attempts)}")
        attempt = attempts[(number or len(attempts)) - 1]
        return cls(
            directory=directory,
            attempt=attempt,
            latest=number is None,
            config=load_config(directory.history(attempt) / "config.yaml"),
            constitution=_constitution(directory, attempt),
        )

    def output(self, stage: str, name: str) -> Path | None:
        """An output of a stage, or None where the stage has none."""
        key = self._key(stage)
        folder = self.directory.stage_path(stage, key) if key else None
        manifest = Manifest.read(folder) if folder else None
        return folder / manifest.outputs[name].path if folder and manifest else None

    def model(self, role: str) -> str:
        """The folder or hub id of a role. Raises FlowError when its stage is not finished."""
        stage = ROLES[role]
        if stage is None:
            return self.config.models.base
        found = self.output(stage, "model")
        if found is None:
            at = "" if self.latest else f"@{self.attempt.number}"
            raise FlowError(f"{self.directory.path}:{role}{at}: stage {stage} of this run is not finished")
        return str(found)

    def constitution_of(self, role: str) -> Constitution:
        """The constitution of the latest attempt that made or reused the model of a role.

        An attempt that an edited constitution began may have stopped before it came to this model.
        """
        stage, attempts = ROLES[role], self.directory.attempts()
        key = self._key(stage) if stage else None
        if not self.latest or key is None:
            return self.constitution
        made = [a for a in attempts if a.stages.get(str(stage), {}).get("key") == key]
        return _constitution(self.directory, made[-1]) if made else self.constitution

    def _key(self, stage: str) -> str | None:
        if self.latest:
            return self.directory.current().get(stage)
        return self.attempt.stages.get(stage, {}).get("key")


@dataclass(frozen=True, kw_only=True)
class ComparedModel(Record):
    """A model that takes part: how people read it, where it lies, the digest of its weights."""

    name: str
    path: str
    digest: str


@dataclass(frozen=True, kw_only=True)
class ModelRef:
    """What a reference to a model led to: names from short to long, and where it is of a run, run and role."""

    short: str
    long: str
    path: str
    run: Run | None = None
    role: str = ""

    @property
    def constitution(self) -> Constitution | None:
        """The constitution under which a run made the model."""
        return self.run.constitution_of(self.role) if self.run else None


def find_model(ref: str) -> ModelRef:
    """The model that a folder, a hub id or `<run>:<role>` or `<run>:<role>@<attempt>` names. Raises FlowError."""
    folder, _, said = ref.rpartition(":")
    place = _run_folder(folder) if folder else None
    match = _ROLE.fullmatch(said)
    if place is not None and match and match["role"] in ROLES:
        run = Run.of(place, int(match["attempt"]) if match["attempt"] else None)
        path = run.model(match["role"])
        check_model(path, ref)
        return ModelRef(short=said, long=f"{place.name}:{said}", path=path, run=run, role=match["role"])
    if place is not None and not Path(ref).exists():
        raise FlowError(
            f"{ref}: {said!r} is not a role of a run: {', '.join(ROLES)} (an attempt's: rl_cai@1)"
        )
    check_model(ref, "model")
    return ModelRef(short=Path(ref).name, long=ref, path=ref)


def named(found: Sequence[ModelRef]) -> list[ComparedModel]:
    """Models under the shortest names that tell them apart. Raises FlowError for the same model twice."""
    shorts, longs = Counter(f.short for f in found), Counter(f.long for f in found)
    models = [
        ComparedModel(
            name=f.short if shorts[f.short] == 1 else f.long if longs[f.long] == 1 else f.path,
            path=f.path,
            digest=model_digest(f.path),
        )
        for f in found
    ]
    seen: dict[str, str] = {}
    for model in models:
        if model.digest in seen:
            raise FlowError(f"{model.name} and {seen[model.digest]} are the same model")
        seen[model.digest] = model.name
    return models


def _run_folder(folder: str) -> Path | None:
    for place in (Path(folder), Path("runs") / folder):
        if (place / "run.json").is_file():
            return place
    return None


def _constitution(directory: RunDirectory, attempt: Attempt) -> Constitution:
    path = directory.history(attempt) / "constitution.json"
    return from_json(json.loads(path.read_text(encoding="utf-8")))
