"""What `charter eval` and the flow `compare-models` ask for, and who takes part: models, prompts, principles, judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.rows import Prompt, read_prompts, report_left_out
from constitution import Constitution, load
from constitution.draw import drawable
from flows.comparison.models import ComparedModel, ModelRef, Run, find_model, named
from flows.config.forms_judging import CompareRequest
from flows.errors import FlowError
from flows.labelling.judge import judge_at, priced_judge
from flows.pipeline.preflight_models import check_model
from judges.settings import JudgeSettings


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
    judge: JudgeSettings
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


def _judge(request: CompareRequest, run: Run | None) -> JudgeSettings:
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
