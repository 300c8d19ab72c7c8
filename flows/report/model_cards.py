"""Model cards: what is known when a model is trained, and the whole of it once the run was evaluated.

A card is no part of a model's digest (`flows.runs.digests`), so writing it again leaves every manifest true.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from common.files import write_atomically
from flows.labelling.ledger import existing_ledger
from flows.report.data import FIGURES, MODELS
from flows.report.lineage import lineage
from flows.report.lineage.facts import audit_words
from flows.report.lineage.facts import facts as lineage_facts
from flows.report.side_effects import effect_sentences
from flows.report.summary import Summary
from flows.runs.record import RunRecord
from training.run.card import NAME, Result, finished_card

_WHOLE = 64
_HELD_OUT = "held-out prompts"


def write_cards(record: RunRecord, summary: Summary) -> list[Path]:
    """Write the cards of the reward models and of the policy again, with lineage and evaluation; gives their paths.

    A policy that this attempt reused and did not evaluate keeps the card that it has, and so does a model that is not
    on this machine.
    """
    written = []
    for stage, name, title, results, notes in _models(record, summary):
        outcome = record.outcomes[stage]
        directory = outcome.directory / outcome.manifest.outputs[name].path
        evaluated = "evaluate" in record.outcomes
        if not (directory / "result.json").is_file() or (outcome.reused and not evaluated):
            continue
        with existing_ledger(record.config) as ledger:
            found = lineage(record.directory.path, stage, outcome.manifest.key, ledger)
        rows = [
            ("run", record.config.name),
            *lineage_facts(found, digits=_WHOLE),
            ("audit", audit_words(summary.audit)),
        ]
        card = finished_card(directory, title=title, facts=rows, results=results, notes=notes)
        write_atomically(directory / NAME, card)
        written.append(directory / NAME)
    if record.directory.store is not None:
        names = [path.relative_to(record.directory.path).as_posix() for path in written]
        record.directory.store.put(record.directory.path, names)
    return written


def _models(record: RunRecord, summary: Summary) -> Iterator[tuple[str, str, str, list[Result], list[str]]]:
    """(stage, output, title, results, notes) of every model that gets a whole card."""
    run = record.config.name
    for stage in ("reward_model", "rl"):
        if (outcome := record.outcomes.get(stage)) is None:
            continue
        for name, written in outcome.manifest.outputs.items():
            if Path(written.path).suffix:
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
