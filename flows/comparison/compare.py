"""Comparing models: answers are drawn, judged in both orders by dimension, and counted. No orchestrator.

    <folder>/
        answers/<digest>.jsonl      a model's answers, kept by the digest of all that decides them
        ledger.db                   the judgements
        <digest>/                   a comparison: comparison.json, .html, .md, matches.jsonl, principles.jsonl

What is there is not done again: a killed comparison goes on, and one more model costs its own answers and matches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common.files import write_atomically, write_json, write_jsonl
from common.rows import Prompt, read_rows
from common.statistics import mean
from flows.comparison.contestants import Bout, CompareRequest, Contender, resolve
from flows.comparison.matches import OVERALL, by_dimension, duels, judge_duels
from flows.comparison.principles import edited_principles, parts, principle_figures
from flows.comparison.report import html, markdown
from flows.errors import FlowError
from flows.evaluation import gold, opinion_pairs, read_answers, watch
from flows.evaluation.comparison import ratings, standings
from flows.evaluation.readings import references_of
from flows.evaluation.reference_metrics import reference_metrics
from flows.evaluation.texts import tokens
from flows.labelling.judge import make_judge
from flows.pipeline.session import describe_constitution
from flows.runs.digests import digest_json
from flows.runs.progress import Progress
from flows.stages.contract import Work
from flows.stages.sampling import Answer, Messages, Sampler, sample_in_parts
from judges import LabelSettings, Ledger

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A finished comparison: its figures, as comparison.json holds them, and its folder."""

    figures: Mapping[str, Any]
    directory: Path


def compare(request: CompareRequest, progress: Progress) -> Comparison:
    """Compare the models of a request, or go on where an earlier attempt was stopped.

    Raises FlowError, ConstitutionError, JudgeError or TrainingError in one line; what was drawn and judged stays.
    """
    bout = resolve(request)
    home = Path(request.folder)
    home.mkdir(parents=True, exist_ok=True)
    sampling = _Sampling(request=request, bout=bout, home=home, progress=progress)
    prompts = [p for p in bout.prompts for _ in range(request.samples)]
    prompts, answers = _answerable(
        prompts, {c.name: sampling.answers(c, [p.prompt for p in prompts]) for c in bout.contenders}
    )
    texts = {name: [a.text for a in found] for name, found in answers.items()}
    met = duels(prompts, texts, {c.name: c.digest for c in bout.contenders})
    edited = edited_principles(bout.before, bout.constitution) if request.by_principle else []
    with Ledger.open(request.ledger or f"sqlite:///{home / 'ledger.db'}") as ledger:
        asking = (make_judge(bout.judge), ledger, LabelSettings(templates=bout.templates, seed=request.seed))
        judged = judge_duels(met, by_dimension(bout.constitution), *asking, progress, by="dimension")
        alone = judge_duels(met, parts(edited, bout.constitution), *asking, progress, by="principle")
    scores: dict[str, list[Any]] = {}
    if gold.is_world([p.prompt for p in prompts]):
        for name, found in texts.items():
            scores[name] = [gold.score_answer(p.prompt, t) for p, t in zip(prompts, found, strict=True)]
    figures: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "models": [asdict(c) for c in bout.contenders],
        "prompts": {
            "path": bout.source,
            "n": len(prompts) // request.samples,
            "samples": request.samples,
            "too_long": len(bout.prompts) - len(prompts) // request.samples,
        },
        "constitution": describe_constitution(bout.constitution),
        "judge": judged.judge,
        "sampling": {**bout.sampling, "dtype": bout.dtype, "seed": request.seed},
        "statuses": judged.statuses,
        "asked": judged.asked + alone.asked,
        "ratings": ratings(list(texts), judged.matches[OVERALL]),
        "dimensions": {d: standings(list(texts), matches) for d, matches in judged.matches.items()},
        "answers": {
            name: _alone(prompts, found, scores.get(name), seed=request.seed)
            for name, found in answers.items()
        },
        "side_effects": _side_effects(sampling, prompts, texts, scores),
    }
    digests = [c.digest for c in bout.contenders]
    decided_by: list[Any] = [digests, figures["sampling"], [p.row() for p in prompts], judged.label_sets]
    if edited:
        a, b = texts
        figures["by_principle"] = principle_figures(
            (a, b), edited, bout.before, bout.constitution, alone, met
        )
        decided_by.append([alone.label_sets, bout.before.digest if bout.before else None])
    directory = home / digest_json(decided_by)[:12]
    write_jsonl(directory / "matches.jsonl", map(dict, judged.rows))
    if edited:
        write_jsonl(directory / "principles.jsonl", map(dict, alone.rows))
    write_atomically(directory / "comparison.html", html(figures))
    write_atomically(directory / "comparison.md", markdown(figures))
    write_json(directory / "comparison.json", figures)
    return Comparison(figures=figures, directory=directory)


@dataclass(frozen=True, kw_only=True)
class _Sampling:
    request: CompareRequest
    bout: Bout
    home: Path
    progress: Progress

    def answers(self, contender: Contender, asked: Sequence[Messages]) -> list[Answer]:
        """A model's answers, drawn once and kept by the digest of all that decides them."""
        seed, bout = self.request.seed, self.bout
        conversations = [[dict(m) for m in messages] for messages in asked]
        key = digest_json([contender.digest, conversations, bout.sampling, bout.dtype, seed])[:16]
        folder = self.home / "answers"
        path = folder / f"{key}.jsonl"
        if not path.exists():
            from transformers.utils.logging import disable_progress_bar

            work = Work(
                stage="compare",
                directory=folder,
                run_directory=self.home,
                seed=seed,
                settings={},
                tuning={},
                inputs={},
                digests={},
                constitution=None,
                progress=lambda done, total, _: self.progress(done, total, f"answers of {contender.name}"),
            )
            disable_progress_bar()  # its bar would tear through our own progress
            sampler = Sampler(contender.path, dtype=bout.dtype)
            drawn = sample_in_parts(
                work, key, sampler, conversations, bout.sampling, batch_size=self.request.batch_size
            )
            write_jsonl(path, ({"text": a.text, "finish": a.finish} for a in drawn))
            for part in (folder / "parts").glob(f"{key}-*.jsonl"):
                part.unlink()
        return [Answer(text=row["text"], finish=row["finish"]) for _, row in read_rows(path)]


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
) -> dict[str, Any]:
    """What can be said of one model's answers without the others."""
    texts = [a.text for a in answers]
    figures: dict[str, Any] = {
        "words": mean([float(len(tokens(t))) for t in texts], seed=seed),
        "truncated": sum(a.finish == "length" for a in answers),
        "empty": sum(not t.strip() for t in texts),
        "references": reference_metrics(texts, [references_of(p.meta) for p in prompts]),
    }
    return figures if scores is None else figures | {"gold": gold.figures(scores, seed=seed)}


def _side_effects(
    sampling: _Sampling,
    prompts: Sequence[Prompt],
    texts: Mapping[str, Sequence[str]],
    scores: Mapping[str, Sequence[Any]],
) -> dict[str, Any]:
    """The watch, the first model being what is normal."""
    pairs = opinion_pairs(prompts, gold=bool(scores))
    place = {prompt.id: index for index, prompt in reversed(list(enumerate(prompts)))}
    swayed = {}
    for contender in sampling.bout.contenders if pairs else ():
        neutral = sampling.answers(contender, [pair.neutral for pair in pairs])
        swayed[contender.name] = [
            (texts[contender.name][place[pair.prompt]], without.text)
            for pair, without in zip(pairs, neutral, strict=True)
        ]
    read = {name: read_answers(prompts, found, scores.get(name)) for name, found in texts.items()}
    reference = sampling.bout.contenders[0].name
    return watch(read, reference=reference, opinions=pairs, swayed=swayed, seed=sampling.request.seed)
