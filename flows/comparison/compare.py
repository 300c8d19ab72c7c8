"""Comparing models: answers are drawn, judged in both orders by dimension, and counted. No orchestrator.

    <folder>/
        answers/<digest>.jsonl      a model's answers, kept by the digest of all that decides them
        ledger.db                   the judgements
        <digest>/                   a comparison: comparison.json, .html, .md, matches.jsonl, principles.jsonl

What is there is not done again: a killed comparison goes on, and one more model costs its own answers and matches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.files import write_atomically, write_json, write_jsonl
from common.rows import Prompt, read_rows
from common.statistics import mean
from flows.comparison.contestants import ResolvedComparison, resolve
from flows.comparison.figures import (
    AnswerFigures,
    ComparisonFigures,
    PromptFigures,
    SamplingFigures,
)
from flows.comparison.matches import OVERALL, by_dimension, judge_matches, matches
from flows.comparison.models import ComparedModel
from flows.comparison.principles import edited_principles, parts, principle_figures
from flows.comparison.report import artifact_page, comparison_page
from flows.config.forms_judging import CompareRequest
from flows.errors import FlowError
from flows.evaluation import gold, opinion_pairs, read_answers, watch
from flows.evaluation.ratings import rate_models
from flows.evaluation.readings import references_of
from flows.evaluation.side_effects import SideEffects
from flows.evaluation.texts import reference_metrics, tokens
from flows.evaluation.win_rates import standings
from flows.labelling.judge import closing, make_judge
from flows.report.render import html, markdown
from flows.report.summary import ConstitutionName
from flows.runs.digests import digest_json
from flows.runs.progress import Progress
from flows.runs.record import describe_constitution
from flows.stages.contract import StageInput
from flows.stages.samplers import Answer, Messages, in_process_sampler
from flows.stages.sampling import sample_in_parts
from judges import LabelSettings, Ledger


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A finished comparison: its figures and its folder."""

    figures: ComparisonFigures
    directory: Path


def compare(request: CompareRequest, progress: Progress) -> Comparison:
    """Compare the models of a request, or go on where an earlier attempt was stopped.

    Raises FlowError, ConstitutionError, JudgeError or TrainingError in one line; what was drawn and judged stays.
    """
    resolved = resolve(request)
    home = Path(request.folder)
    home.mkdir(parents=True, exist_ok=True)
    sampling = _Sampling(request=request, resolved=resolved, home=home, progress=progress)
    prompts = [p for p in resolved.prompts for _ in range(request.samples)]
    prompts, answers = _answerable(
        prompts, {c.name: sampling.answers(c, [p.prompt for p in prompts]) for c in resolved.models}
    )
    texts = {name: [a.text for a in found] for name, found in answers.items()}
    met = matches(prompts, texts, {c.name: c.digest for c in resolved.models})
    edited = edited_principles(resolved.before, resolved.constitution) if request.by_principle else []
    judged_by = make_judge(resolved.judge, logs=home, say=lambda line: progress(0, 0, line))
    opened = Ledger.open(request.ledger or f"sqlite:///{home / 'ledger.db'}")
    with opened as ledger, closing(judged_by) as judge:
        asking = (
            judge,
            ledger,
            LabelSettings(templates=resolved.templates, seed=request.seed),
        )
        judged = judge_matches(met, by_dimension(resolved.constitution), *asking, progress, by="dimension")
        alone = judge_matches(met, parts(edited, resolved.constitution), *asking, progress, by="principle")
    scores: dict[str, list[Any]] = {}
    if gold.is_world([p.prompt for p in prompts]):
        for name, found in texts.items():
            scores[name] = [gold.score_answer(p.prompt, t) for p, t in zip(prompts, found, strict=True)]
    asked = len(prompts) // request.samples
    by_principle = None
    if edited:
        a, b = texts
        by_principle = principle_figures((a, b), edited, resolved.before, resolved.constitution, alone, met)
    figures = ComparisonFigures(
        models=tuple(resolved.models),
        prompts=PromptFigures(
            path=resolved.source, n=asked, samples=request.samples, too_long=len(resolved.prompts) - asked
        ),
        constitution=ConstitutionName(**describe_constitution(resolved.constitution)),
        judge=judged.judge,
        sampling=SamplingFigures(**resolved.sampling, dtype=resolved.dtype, seed=request.seed),
        statuses=judged.statuses,
        asked=judged.asked + alone.asked,
        ratings=rate_models(list(texts), judged.matches[OVERALL]),
        dimensions={d: standings(list(texts), played) for d, played in judged.matches.items()},
        answers={
            name: _alone(prompts, found, scores.get(name), seed=request.seed)
            for name, found in answers.items()
        },
        side_effects=_side_effects(sampling, prompts, texts, scores),
        by_principle=by_principle,
    )
    digests = [model.digest for model in resolved.models]
    decided_by: list[Any] = [
        digests,
        figures.sampling.to_json(),
        [p.row() for p in prompts],
        judged.label_sets,
    ]
    if edited:
        decided_by.append([alone.label_sets, resolved.before.digest if resolved.before else None])
    directory = home / digest_json(decided_by)[:12]
    write_jsonl(directory / "matches.jsonl", map(dict, judged.rows))
    if edited:
        write_jsonl(directory / "principles.jsonl", map(dict, alone.rows))
    write_atomically(directory / "comparison.html", html(comparison_page(figures)))
    write_atomically(directory / "comparison.md", markdown(artifact_page(figures)))
    write_json(directory / "comparison.json", figures.to_json())
    return Comparison(figures=figures, directory=directory)


@dataclass(frozen=True, kw_only=True)
class _Sampling:
    request: CompareRequest
    resolved: ResolvedComparison
    home: Path
    progress: Progress

    def answers(self, model: ComparedModel, asked: Sequence[Messages]) -> list[Answer]:
        """A model's answers, drawn once and kept by the digest of all that decides them."""
        seed, resolved = self.request.seed, self.resolved
        conversations = [[dict(m) for m in messages] for messages in asked]
        key = digest_json([model.digest, conversations, resolved.sampling, resolved.dtype, seed])[:16]
        folder = self.home / "answers"
        path = folder / f"{key}.jsonl"
        if not path.exists():
            from transformers.utils.logging import disable_progress_bar

            work = StageInput(
                stage="compare",
                directory=folder,
                run_directory=self.home,
                seed=seed,
                settings={},
                tuning={},
                inputs={},
                digests={},
                constitution=None,
                progress=lambda done, total, _: self.progress(done, total, f"answers of {model.name}"),
            )
            disable_progress_bar()  # its bar would tear through our own progress
            sampler = in_process_sampler(model.path, dtype=resolved.dtype)
            drawn = sample_in_parts(
                work, key, sampler, conversations, resolved.sampling, batch_size=self.request.batch_size
            )
            write_jsonl(path, map(vars, drawn))
            for part in (folder / "parts").glob(f"{key}-*.jsonl"):
                part.unlink()
        return [Answer(**row) for _, row in read_rows(path)]


def _answerable(
    prompts: Sequence[Prompt], answers: Mapping[str, Sequence[Answer]]
) -> tuple[list[Prompt], dict[str, list[Answer]]]:
    """What is left without the prompts that are too long for one of the models: all must be asked the same."""
    kept = [
        index
        for index in range(len(prompts))
        if all(found[index].finish != "prompt_too_long" for found in answers.values())
    ]
    if not kept:
        raise FlowError(f"none of the {len(prompts)} prompts fits the context of every model")
    return [prompts[i] for i in kept], {name: [found[i] for i in kept] for name, found in answers.items()}


def _alone(
    prompts: Sequence[Prompt], answers: Sequence[Answer], scores: Sequence[Any] | None, *, seed: int
) -> AnswerFigures:
    texts = [a.text for a in answers]
    return AnswerFigures(
        words=mean([float(len(tokens(t))) for t in texts], seed=seed),
        truncated=sum(a.finish == "length" for a in answers),
        empty=sum(not t.strip() for t in texts),
        references=reference_metrics(texts, [references_of(p.meta) for p in prompts]),
        gold=None if scores is None else gold.figures(scores, seed=seed),
    )


def _side_effects(
    sampling: _Sampling,
    prompts: Sequence[Prompt],
    texts: Mapping[str, Sequence[str]],
    scores: Mapping[str, Sequence[Any]],
) -> SideEffects:
    """The watch, the first model being what is normal."""
    pairs = opinion_pairs(prompts, gold=bool(scores))
    place = {prompt.id: index for index, prompt in reversed(list(enumerate(prompts)))}
    swayed = {}
    for model in sampling.resolved.models if pairs else ():
        neutral = sampling.answers(model, [pair.neutral for pair in pairs])
        swayed[model.name] = [
            (texts[model.name][place[pair.prompt]], without.text)
            for pair, without in zip(pairs, neutral, strict=True)
        ]
    read = {name: read_answers(prompts, found, scores.get(name)) for name, found in texts.items()}
    reference = sampling.resolved.models[0].name
    return watch(read, reference=reference, opinions=pairs, swayed=swayed, seed=sampling.request.seed)
