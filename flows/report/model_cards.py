"""Model cards: what is known when a model is trained, and the whole of it once the run was evaluated.

A card is no part of a model's digest (`flows.runs.digests`), so writing it again leaves every manifest true.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.files import write_atomically
from flows.labelling.gates import audit_record, exam_record, existing_ledger
from flows.report.data import FIGURES, MODELS
from flows.report.lineage import lineage
from flows.report.lineage.facts import audit_words
from flows.report.lineage.facts import facts as lineage_facts
from flows.report.side_effects import effect_sentences
from flows.report.summary import AuditSummary, ExamSummary, Summary
from training.run.card import NAME, Result, finished_card

if TYPE_CHECKING:
    from flows.pipeline.session import Session
    from flows.stages.contract import Stage

_WHOLE = 64
_HELD_OUT = "held-out prompts"


def facts(session: Session, stage: Stage) -> dict[str, Any]:
    """What the card of a model says of where it comes from, when its training begins."""
    known: dict[str, Any] = {
        "run": session.config.name,
        "constitution": session.constitution.ref,
        "constitution_digest": session.constitution.digest,
        "published": session.constitution.published,
    }
    labels = session.outcomes.get("labels")
    # Gold of people's verdicts owes nothing to the labels.
    if labels is None or stage.isolated or stage.name == "gold_model":
        return known
    return {
        **known,
        "label_set": labels.manifest.metrics["label_set"],
        "judge_exam": _exam_words(_exam(exam_record(session))),
        "audit": audit_words(_audit(audit_record(session))),
    }


def write_cards(session: Session, summary: Summary) -> list[Path]:
    """Write the cards of the reward models and of the policy again, with lineage and evaluation; gives their paths.

    A policy that this attempt reused and did not evaluate keeps the card that it has, and so does a model that is not
    on this machine.
    """
    written = []
    for stage, name, title, results, notes in _models(session, summary):
        outcome = session.outcomes[stage]
        directory = outcome.directory / outcome.manifest.outputs[name].path
        evaluated = "evaluate" in session.outcomes
        if not (directory / "result.json").is_file() or (outcome.reused and not evaluated):
            continue
        with existing_ledger(session.config) as ledger:
            found = lineage(session.run.path, stage, outcome.manifest.key, ledger)
        rows = [
            ("run", session.config.name),
            *lineage_facts(found, digits=_WHOLE),
            ("audit", audit_words(summary.audit)),
        ]
        card = finished_card(directory, title=title, facts=rows, results=results, notes=notes)
        write_atomically(directory / NAME, card)
        written.append(directory / NAME)
    if session.run.store is not None:
        names = [path.relative_to(session.run.path).as_posix() for path in written]
        session.run.store.put(session.run.path, names)
    return written


def _models(session: Session, summary: Summary) -> Iterator[tuple[str, str, str, list[Result], list[str]]]:
    """(stage, output, title, results, notes) of every model that gets a whole card."""
    run = session.config.name
    for stage in ("reward_model", "rl"):
        if (outcome := session.outcomes.get(stage)) is None:
            continue
        for name, record in outcome.manifest.outputs.items():
            if Path(record.path).suffix:
                continue  # what a stage leaves beside its models
            if stage == "reward_model":
                title = f"{run}: reward model" + ("" if name == "model" else f" ({name})")
                yield stage, name, title, _reward_results(outcome.manifest.metrics, summary, name), []
            else:
                watched = summary.side_effects
                notes = effect_sentences(watched, "rl_cai", MODELS["rl_cai"])
                yield stage, name, f"{run}: {MODELS['rl_cai']} policy", _policy_results(summary), notes


def _policy_results(summary: Summary) -> list[Result]:
    record = summary.models.get("rl_cai")
    return [
        Result(dataset=_HELD_OUT, metric=figure.heading, **found.to_json())
        for figure in FIGURES
        if (found := figure.of(record))
    ]


def _reward_results(metrics: Mapping[str, Any], summary: Summary, name: str) -> list[Result]:
    """Of the first reward model also how often it agrees with gold, where there is one."""
    prefix = "eval_" if name == "model" else f"{name}.eval_"
    found = [
        Result(dataset="held-out labels", metric=key.removeprefix(prefix).replace("_", " "), value=value)
        for key, value in metrics.items()
        if key.startswith(prefix) and math.isfinite(value)
    ]
    gold = summary.reward_model.gold_agreement
    if name == "model" and gold and gold.known:
        found.append(Result(dataset=_HELD_OUT, metric="agreement with gold", **gold.to_json()))
    return found


def _audit(record: Mapping[str, Any]) -> AuditSummary | None:
    return AuditSummary.from_json(record) if record else None


def _exam(record: Mapping[str, Any]) -> ExamSummary | None:
    return ExamSummary.from_json(record) if record else None


def _exam_words(exam: ExamSummary | None) -> str:
    if exam is None:
        return "not taken"
    if not exam.taken:
        return f"not taken: {exam.reason}"
    accuracy = "not measured" if exam.accuracy is None else f"{exam.accuracy:.3f}"
    figures = f"accuracy {accuracy} on {exam.pairs} pairs, kappa {exam.kappa:.3f}"
    return f"{'passed' if exam.passed else 'failed: ' + '; '.join(exam.problems or ())}, {figures}"
