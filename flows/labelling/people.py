"""People's verdicts as gold: how many pairs they decided in a run's ledger, and what a model of these is worth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flows.errors import FlowError
from flows.labelling.ledger import existing_ledger, ledger_of
from judges.audit import last_words

if TYPE_CHECKING:
    from flows.config import RunConfig

LEAST_PAIRS = 100
"""Fewer make a gold judge of noise."""


def check_people(config: RunConfig) -> None:
    """Raises FlowError where there is no ledger, or people decided too few pairs in it, the run's own included."""
    decided, place = decided_pairs(config), ledger_of(config)
    if decided is None:
        raise FlowError(f"rl.early_stopping.people: {place}: no such ledger; {_bring(place)}")
    if decided < LEAST_PAIRS:
        raise too_few(decided, place)


def decided_pairs(config: RunConfig) -> int | None:
    """How many pairs people decided in the run's ledger; None where there is no ledger."""
    with existing_ledger(config) as ledger:
        return None if ledger is None else sum(word.decided is not None for word in last_words(ledger))


def too_few(pairs: int, ledger: str, more: str = "") -> FlowError:
    """So many pairs make no gold judge; `more` says what else holds of them."""
    return FlowError(
        f"rl.early_stopping.people: {pairs} pairs in {ledger} that people decided{more}; {LEAST_PAIRS} are needed; "
        f"{_bring(ledger)}"
    )


def worth(metrics: Mapping[str, Any]) -> str:
    """What the stage `gold_model` says of itself, as in "412 pairs by 3 people, right about 71% (60 to 79) of 82
    held-out ones"."""
    accuracy, people = metrics["accuracy"], metrics["people"]
    value, low, high = (f"{100 * accuracy[name]:.0f}" for name in ("value", "low", "high"))
    who = f"{people:,} people" if people > 1 else "one person"
    return (
        f"{metrics['pairs']:,} pairs by {who}, right about {value}% ({low} to {high}) of {accuracy['n']:,} "
        "held-out ones"
    )


def _bring(ledger: str) -> str:
    return f"charter labels import FILE --who NAME --ledger {ledger} brings in people's preferences"
