"""What `charter eval` and the flow `compare-models` ask for, and who takes part: models, prompts, principles, judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from common.rows import Prompt, read_prompts, report_left_out
from constitution import Constitution, load
from constitution.draw import drawable
from flows.comparison.models import ComparedModel, ModelRef, Run, find_model, named
from flows.errors import FlowError
from flows.labelling.judge import judge_at, priced_judge
from flows.pipeline.preflight import check_model


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
        description="Two or more: folders, hub ids, or roles of a run such as runs/microworld:rl_cai (rl_cai@1: as its "
        "first attempt had it). Side effects are measured against the first.",
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
    by_principle: bool = _field(
        18,
        "By principle",
        "Two models: also judge every pair of answers under each comparison principle on its own.",
        False,
    )
    before: str | None = _field(
        19,
        "Constitution before",
        "By principle: the version that the first model was trained on, for the marks of what was edited since. By "
        "default its run's.",
    )


@dataclass(frozen=True, kw_only=True)
class ResolvedComparison:
    """A request with everything found and checked; `judge` are settings for `flows.labelling.judge.make_judge`.

    `before` is the constitution of the first model where that is compared by principle and known.
    """

    models: Sequence[ComparedModel]
    prompts: Sequence[Prompt]
    source: str
    constitution: Constitution
    before: Constitution | None
    judge: Mapping[str, Any]
    templates: str
    sampling: Mapping[str, Any]
    dtype: str


def resolve(request: CompareRequest) -> ResolvedComparison:
    """Everything that a request names, found and checked before anything is spent.

    Raises FlowError, ConstitutionError or TrainingError in one line.
    """
    found = [find_model(ref) for ref in request.models]
    run = next((f.run for f in found if f.run is not None), None)
    path = request.prompts or (run.output("prompts", "eval") if run else None)
    if path is None:
        raise FlowError("prompts: give a file of prompts; no model is of a run that has held-out ones")
    before, constitution = _constitutions(request, found, run)
    section = run.config.evaluate.sampling if run else None
    sampling: dict[str, Any] = {}
    for name, otherwise in (("temperature", 1.0), ("top_p", 1.0), ("max_new_tokens", 512)):
        asked = getattr(request, name)
        sampling[name] = asked if asked is not None else getattr(section, name, otherwise)
    return ResolvedComparison(
        models=named(found),
        prompts=list(report_left_out(read_prompts(Path(path), limit=request.limit))),
        source=str(path),
        constitution=constitution,
        before=before,
        judge=_judge(request, run),
        templates=request.templates
        or (run.config.labels.templates if run and not request.judge else "default"),
        sampling=sampling,
        dtype=request.dtype or (run.config.models.dtype if run else "float32"),
    )


def _constitutions(
    request: CompareRequest, found: Sequence[ModelRef], run: Run | None
) -> tuple[Constitution | None, Constitution]:
    """The constitution before an edit, where asked for and known, and the one that the models are judged by."""
    if request.by_principle and len(found) != 2:
        raise FlowError(f"by_principle: compares two models, not {len(found)}")
    if request.before and not request.by_principle:
        raise FlowError("before: only a comparison by principle (by_principle) has a constitution before")
    constitution = run.constitution if run else None
    if request.by_principle:
        constitution = found[1].constitution or found[0].constitution
    if request.constitution:
        constitution = load(request.constitution)
    if constitution is None:
        raise FlowError("constitution: give one; no model is of a run that has one")
    if not drawable(constitution.comparison):
        raise FlowError(f"constitution: {constitution.ref} has no enabled comparison principle")
    if not request.by_principle:
        return None, constitution
    return load(request.before) if request.before else found[0].constitution, constitution


def _judge(request: CompareRequest, run: Run | None) -> Mapping[str, Any]:
    if request.judge is None:
        if run is None:
            raise FlowError(
                "judge: give a model folder or a server's address; no model is of a run that has one"
            )
        return priced_judge(run.config)
    if "://" not in request.judge:
        check_model(request.judge, "judge")
    return judge_at(
        request.judge,
        model=request.judge_model,
        tokenizer=request.tokenizer,
        api_key_env=request.api_key_env,
    )
