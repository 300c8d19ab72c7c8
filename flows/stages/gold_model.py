"""A gold judge from people, for early stopping alone: a reward model of their verdicts.

Gold that is a reward model is as in Gao et al. 2022 (arXiv 2210.10760).

People score no new answer; a model of what they preferred does. It learns from their last word on every pair in the
ledger that this run does not train on, and it must tell which of held-out pairs' answers they preferred.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from common.files import write_atomically
from common.rows import read_preferences, read_rows
from common.statistics import rate
from flows.errors import FlowError
from flows.labelling.ledger import LEAST_PAIRS, decided_pairs, existing_ledger, too_few, worth
from flows.pipeline.forecast.needs import Forecaster, Needs
from flows.runs.digests import digest_file
from flows.stages.contract import WITHOUT, Artifact, Inputs, Json, Result, Stage, StageInput
from flows.stages.labels import ledger_url
from flows.stages.reward_model import OWN
from flows.stages.trainer import settings_of, train, tuning_of
from judges import Ledger, Pair
from judges.audit import last_words, last_words_digest
from judges.export import json_line
from judges.known import known_pair

if TYPE_CHECKING:
    from flows.config import RunConfig

LEAST_HELD_OUT = 0.2
"""The share of the pairs that says what the model is worth."""
LEAST_RIGHT = 0.55
"""The interval of its accuracy must lie above this: models right about 54 to 55% of 480 pairs stopped one run of three.
"""
_NAMES = 10


def run(work: StageInput) -> Result:
    """Train on what people decided and this run does not train on; people.jsonl keeps these pairs.

    Raises FlowError when they are too few, and when the model is right about held-out ones little more than by chance.
    """
    with Ledger.open(ledger_url(work), create=False) as ledger:
        words, place = last_words(ledger), ledger.url
    own = _trained_on(work)
    decided = [word for word in words if word.decided is not None]
    used = [word for word in decided if word.pair.content not in own]
    if len(used) < LEAST_PAIRS:
        raise too_few(len(used), place, " and this run does not train on")
    data = work.directory / "people.jsonl"
    write_atomically(data, "".join(json_line(word.to_row()) for word in used))
    fields = {"model": work.inputs["model"], "data": [str(data)]}
    trained = train(work, "reward_model", fields=fields, shown=("loss", "accuracy"))
    names = Counter(word.who for word in used)
    n = int(trained["held_out_pairs"])
    right = round(trained["eval_accuracy"] * n)
    metrics: Json = {
        "pairs": len(used),
        "trained_on": len(decided) - len(used),
        "ties": len(words) - len(decided),
        "people": len(names),
        "names": dict(names.most_common(_NAMES)),
        "accuracy": rate([True] * right + [False] * (n - right)).to_json(),
    }
    if metrics["accuracy"]["low"] <= LEAST_RIGHT:
        raise FlowError(
            f"rl.early_stopping.people: a model of {worth(metrics)}, which is too near chance to stop a run by (the "
            f"interval must lie above {LEAST_RIGHT:.0%}); bring in more verdicts, or name another gold"
        )
    return Result(outputs={"model": "model", "people": "people.jsonl"}, metrics=metrics)


def held_out(config: RunConfig) -> float:
    """The share of the pairs that the model does not learn from."""
    return max(LEAST_HELD_OUT, config.reward_model.held_out)


def _trained_on(work: StageInput) -> set[str]:
    """The contents of all pairs that this run trains on."""
    found: set[str] = set()
    for name in (name for name in work.inputs if name.startswith(WITHOUT)):
        path = work.input(name)
        found |= _of_pairs(path) if name.startswith(f"{WITHOUT}pairs") else _of_preferences(path)
    return found


def _of_pairs(path: Path) -> set[str]:
    return {Pair.from_row(row).content for _, row in read_rows(path)}


def _of_preferences(path: Path) -> set[str]:
    return {known_pair(preference).pair.content for preference in read_preferences(path)}


def _inputs(inputs: Inputs) -> dict[str, Artifact]:
    section = inputs.config.reward_model
    found = {
        "model": inputs.model(section.start_from),
        f"{WITHOUT}pairs": inputs.output("pairs", "pairs"),
    }
    if section.rewrites:
        found[f"{WITHOUT}rewrites"] = inputs.output("critique_revision", "rewrites")
    if section.human:
        path = section.human.path
        found[f"{WITHOUT}human"] = Artifact(path=str(path), digest=digest_file(path))
    with existing_ledger(inputs.config) as ledger:
        words = [] if ledger is None else last_words(ledger)
    return {**found, "verdicts": Artifact(path="ledger", digest=last_words_digest(words))}


def _settings(config: RunConfig) -> Json:
    settings = settings_of(config.reward_model, without=OWN)
    return {"knobs": {**settings["knobs"], "held_out": held_out(config)}}


def _active(config: RunConfig) -> bool:
    section = getattr(config.rl, "early_stopping", None)
    return section is not None and section.people


def _forecast(ahead: Forecaster) -> Needs:
    """A reward model from what people decided; the pairs that the run trains on are not known yet."""
    items = max(1, round((decided_pairs(ahead.config) or 0) * (1 - held_out(ahead.config))))
    tokens = ahead.inputs.prompt_tokens + 2 * ahead.config.pairs.sampling.max_new_tokens
    source = f"at most {items:,} pairs, answers as long as they may be"
    return ahead.training(ahead.config.reward_model, items, tokens, source=source, logits=False)


STAGE = Stage(
    name="gold_model",
    title="Early stopping's gold model of people's verdicts",
    inputs=_inputs,
    settings=_settings,
    tuning=lambda config: {
        **tuning_of(config, config.reward_model, without=OWN),
        "ledger": config.labels.ledger,
    },
    run=run,
    forecast=_forecast,
    active=_active,
    summary=worth,
)
