"""What `charter eval` and the flow `compare-models` ask for, and who takes part: models, prompts, principles, judge."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from constitution import Constitution, load
from flows.config import RunConfig, load_config
from flows.errors import FlowError
from flows.manifest import Manifest
from flows.models import model_digest
from flows.preflight import check_model
from flows.prompts import Prompt, read_prompts
from flows.runs import RunDirectory
from flows.snapshot import from_json

# Roles that a run's folder gives a model to: the stage that makes it, or None where the configuration names it.
ROLES = {"base": None, "helpful_only": "helpful_sft", "sl_cai": "sl_cai", "rl_cai": "rl"}


def _field(position: int, title: str, description: str, default: Any = None, **more: Any) -> Any:
    return Field(
        default=default,
        title=title,
        description=description,
        json_schema_extra={"position": position},
        **more,
    )


class CompareRequest(BaseModel):
    """One comparison of models. Where a model is a run's, what is left out is taken from that run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    models: tuple[str, ...] = Field(
        min_length=2,
        max_length=32,
        title="Models",
        description="Two or more: folders, hub ids, or roles of a run such as runs/microworld:rl_cai. Side effects are "
        "measured against the first.",
        json_schema_extra={"position": 0},
    )
    prompts: str | None = _field(
        1, "Prompts", "A JSONL or Parquet file; by default the run's held-out prompts."
    )
    constitution: str | None = _field(2, "Constitution", "name@1.2.0, a working file's name or a path.")
    judge: str | None = _field(3, "Judge", "A model folder, or a server such as http://127.0.0.1:8000/v1.")
    judge_model: str | None = _field(4, "Name of the served model", "Where a server has several.")
    tokenizer: str | None = _field(5, "Folder of the served model", "Prompts then travel as token ids.")
    api_key_env: str | None = _field(
        6,
        "Environment variable with the key",
        "Its name, never the key.",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
    )
    templates: str | None = _field(7, "Template set of the judge", "default, microworld, or a folder.")
    limit: int | None = _field(8, "Prompts at most", "Take so many prompts from the beginning.", ge=1)
    samples: int = _field(9, "Answers per prompt and model", "Averaged by prompt.", 1, ge=1, le=64)
    max_new_tokens: int | None = _field(10, "Longest answer", "In tokens; 512 by default.", ge=1, le=131_072)
    temperature: float | None = _field(
        11, "Temperature", "1 by default; 0 takes the likeliest.", ge=0, le=100
    )
    top_p: float | None = _field(12, "Top p", "1 by default.", gt=0, le=1)
    dtype: Literal["float32", "bfloat16"] | None = _field(13, "Number format", "float32 by default.")
    batch_size: int = _field(14, "Answers at a time", "Bounds memory.", 128, ge=1, le=65_536)
    seed: int = _field(15, "Seed", "Of the answers and of the draw of principles.", 0, ge=0, lt=2**31)
    folder: str = _field(16, "Folder", "Where answers, judgements and results are kept.", "runs/comparisons")
    ledger: str | None = _field(17, "Ledger", "A file or URL; by default ledger.db in the folder.")


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A model that takes part: how people read it, where it lies, the digest of its weights."""

    name: str
    path: str
    digest: str


@dataclass(frozen=True, kw_only=True)
class Bout:
    """A request with everything found and checked; `judge` are settings for `flows.judging.make_judge`."""

    contenders: Sequence[Contender]
    prompts: Sequence[Prompt]
    source: str
    constitution: Constitution
    judge: Mapping[str, Any]
    templates: str
    sampling: Mapping[str, Any]
    dtype: str


@dataclass(frozen=True, kw_only=True)
class _Run:
    """A run whose models take part."""

    directory: RunDirectory
    config: RunConfig
    constitution: Constitution

    @classmethod
    def of(cls, path: Path) -> _Run:
        directory = RunDirectory(path)
        attempts = directory.attempts()
        if not attempts:
            raise FlowError(f"{path}: is not a run's folder (it has no run.json)")
        history = directory.history(attempts[-1])
        snapshot = json.loads((history / "constitution.json").read_text(encoding="utf-8"))
        return cls(
            directory=directory,
            config=load_config(history / "config.yaml"),
            constitution=from_json(snapshot),
        )

    def output(self, stage: str, name: str) -> Path | None:
        """An output of a stage's latest result, or None where the stage has none."""
        key = self.directory.current().get(stage)
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
            raise FlowError(f"{self.directory.path}:{role}: stage {stage} of this run is not finished")
        return str(found)


def resolve(request: CompareRequest) -> Bout:
    """Everything that a request names, found and checked before anything is spent.

    Raises FlowError, ConstitutionError or TrainingError in one line.
    """
    runs: dict[str, _Run] = {}
    found = [_contender(ref, runs) for ref in request.models]
    run = next(iter(runs.values()), None)
    path = request.prompts or (run.output("prompts", "eval") if run else None)
    if path is None:
        raise FlowError("prompts: give a file of prompts; no model is of a run that has held-out ones")
    constitution = load(request.constitution) if request.constitution else run.constitution if run else None
    if constitution is None:
        raise FlowError("constitution: give one; no model is of a run that has one")
    if not any(p.enabled and p.weight > 0 for p in constitution.comparison):
        raise FlowError(f"constitution: {constitution.ref} has no enabled comparison principle")
    section = run.config.evaluate.sampling if run else None
    sampling: dict[str, Any] = {}
    for name, otherwise in (("temperature", 1.0), ("top_p", 1.0), ("max_new_tokens", 512)):
        asked = getattr(request, name)
        sampling[name] = asked if asked is not None else getattr(section, name, otherwise)
    return Bout(
        contenders=_named(found),
        prompts=read_prompts(Path(path), limit=request.limit),
        source=str(path),
        constitution=constitution,
        judge=_judge(request, run),
        templates=request.templates
        or (run.config.labels.templates if run and not request.judge else "default"),
        sampling=sampling,
        dtype=request.dtype or (run.config.models.dtype if run else "float32"),
    )


def _contender(ref: str, runs: dict[str, _Run]) -> tuple[str, str, str]:
    """(short name, long name, path) of a model; its run is noted in `runs`."""
    folder, _, role = ref.rpartition(":")
    if folder and role in ROLES and (place := _run_folder(folder)) is not None:
        run = runs.setdefault(str(place), _Run.of(place))
        path = run.model(role)
        check_model(path, ref)
        return role, f"{place.name}:{role}", path
    if folder and _run_folder(folder) is not None and not Path(ref).exists():
        raise FlowError(f"{ref}: {role!r} is not a role of a run: {', '.join(ROLES)}")
    check_model(ref, "model")
    return Path(ref).name, ref, ref


def _run_folder(folder: str) -> Path | None:
    for place in (Path(folder), Path("runs") / folder):
        if (place / "run.json").is_file():
            return place
    return None


def _named(found: Sequence[tuple[str, str, str]]) -> list[Contender]:
    """Contenders under the shortest names that tell them apart. Raises FlowError for the same model twice."""
    shorts = Counter(short for short, _, _ in found)
    longs = Counter(name for _, name, _ in found)
    contenders = [
        Contender(
            name=short if shorts[short] == 1 else name if longs[name] == 1 else path,
            path=path,
            digest=model_digest(path),
        )
        for short, name, path in found
    ]
    seen: dict[str, str] = {}
    for contender in contenders:
        if contender.digest in seen:
            raise FlowError(f"{contender.name} and {seen[contender.digest]} are the same model")
        seen[contender.digest] = contender.name
    return contenders


def _judge(request: CompareRequest, run: _Run | None) -> Mapping[str, Any]:
    if request.judge is None:
        if run is None:
            raise FlowError(
                "judge: give a model folder or a server's address; no model is of a run that has one"
            )
        return run.config.judge.model_dump(mode="json")
    served = "://" in request.judge
    if not served:
        check_model(request.judge, "judge")
    return {
        "kind": "openai" if served else "in_process",
        "model": request.judge_model if served else request.judge,
        "dtype": "auto",
        "endpoints": [request.judge],
        "tokenizer": request.tokenizer,
        "revision": None,
        "api_key_env": request.api_key_env,
        "prompts_per_request": 32,
        "concurrency": 8,
        "timeout_s": 120.0,
    }
