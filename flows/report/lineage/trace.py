"""What a result was made from: the stages behind it, followed from manifest to manifest by what each one read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flows.errors import FlowError
from flows.runs.directory import KEY_LENGTH
from flows.runs.manifest import FileRecord, Manifest


@dataclass(frozen=True, kw_only=True)
class Read:
    """One input of a step: its name there, its path and digest, and the step that made it (None: from outside)."""

    name: str
    path: str
    digest: str
    step: str | None = None


@dataclass(frozen=True, kw_only=True)
class Step:
    """A finished stage; `id` is its folder in the run directory, such as `sl_cai/f2277c7f6cac`."""

    id: str
    manifest: Manifest
    reads: tuple[Read, ...]

    @property
    def stage(self) -> str:
        """The stage's name."""
        return self.manifest.stage


@dataclass(frozen=True, kw_only=True)
class Trace:
    """The steps behind a result, each after all that it read from; `gaps` say in words what could not be followed."""

    steps: tuple[Step, ...]
    gaps: tuple[str, ...] = ()

    @property
    def last(self) -> Step:
        """The step that the others are behind."""
        return self.steps[-1]

    def by_id(self, id: str) -> Step:
        """One of the steps."""
        return next(step for step in self.steps if step.id == id)


def trace(run: Path, stage: str, key: str) -> Trace:
    """Follow a finished stage of a run directory back to what came from outside.

    An input is followed only where what lies there now has the digest that was read. Raises FlowError when the stage
    itself is not finished.
    """
    steps: dict[str, Step] = {}
    gaps: list[str] = []
    under_way: set[str] = set()

    def follow(id: str, manifest: Manifest) -> None:
        under_way.add(id)
        reads = []
        for name, record in manifest.inputs.items():
            source = _made_here(record)
            found = Manifest.read(run / source) if source and source not in under_way else None
            if source and not _has(found, source, record):
                gaps.append(
                    f"{id} read {record.path} with digest {record.digest[:12]}, which is not there any more"
                )
                source = None
            if source and found and source not in steps:
                follow(source, found)
            reads.append(Read(name=name, path=record.path, digest=record.digest, step=source))
        under_way.discard(id)
        steps[id] = Step(id=id, manifest=manifest, reads=tuple(reads))

    start = f"{stage}/{key[:KEY_LENGTH]}"
    manifest = Manifest.read(run / start)
    if manifest is None:
        raise FlowError(f"{run / start}: stage {stage} is not finished there")
    follow(start, manifest)
    return Trace(steps=tuple(steps.values()), gaps=tuple(gaps))


def _made_here(record: FileRecord) -> str | None:
    """`stage/key` where a path is one inside the run directory; those from outside are absolute, or hub ids."""
    parts = record.path.split("/")
    inside = len(parts) > 2 and not Path(record.path).is_absolute() and len(parts[1]) == KEY_LENGTH
    return f"{parts[0]}/{parts[1]}" if inside else None


def _has(manifest: Manifest | None, step: str, read: FileRecord) -> bool:
    """Whether a finished stage still has an output as it was read."""
    if manifest is None:
        return False
    return any(
        f"{step}/{made.path}" == read.path and made.digest == read.digest
        for made in manifest.outputs.values()
    )
