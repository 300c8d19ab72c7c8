"""Where a run's judgements are kept, what its labels cost, and whether people decided enough pairs to be gold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.rows import read_rows
from flows.config import RunConfig
from flows.config.judging import PricesSection
from flows.errors import FlowError
from flows.runs.record import RunRecord
from judges import Ledger
from judges.audit import last_words, verdicts_digest
from judges.ledger.spending import Spending, spending


def ledger_at(ledger: str | None, run: Path) -> str:
    """The ledger that a configuration names, or the one in the run directory, as a URL."""
    return ledger or f"sqlite:///{run / 'ledger.db'}"


def ledger_of(config: RunConfig) -> str:
    """The URL of the run's ledger."""
    return ledger_at(config.labels.ledger, config.run_directory)


@contextmanager
def existing(url: str) -> Iterator[Ledger | None]:
    """A ledger, or None where there is none yet; looking makes none."""
    if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).is_file():
        yield None
        return
    with Ledger.open(url) as ledger:
        yield ledger


@contextmanager
def existing_ledger(config: RunConfig) -> Iterator[Ledger | None]:
    """The run's ledger, or None where there is none yet."""
    with existing(ledger_of(config)) as ledger:
        yield ledger


def people_said(config: RunConfig) -> str | None:
    """The digest of people's verdicts in the run's ledger; None without any."""
    with existing_ledger(config) as ledger:
        return None if ledger is None else verdicts_digest(ledger)


def label_costs(record: RunRecord, stages: Iterable[str]) -> dict[str, Any]:
    """Costs of the labels that these labelling stages made, by their folders in the run directory.

    `judge` sums the judgements behind all of the labels, whenever they were made, `attempt` those that this attempt
    made. `money` is there where a price is stated: `judge` for the tokens of all judgements, `people` for as many
    labels made by people. Empty without labels or ledger.
    """
    digests, pairs = _labels(record.directory.path, stages)
    began = datetime.fromisoformat(record.attempt.started_at).timestamp()
    with existing_ledger(record.config) as ledger:
        if ledger is None or not digests:
            return {}
        together, recent = spending(ledger, digests, since=began)
    return {
        "labels": pairs,
        "judge": asdict(together),
        "attempt": asdict(recent),
        **_money(record.config.prices, together, pairs),
    }


def _labels(run: Path, stages: Iterable[str]) -> tuple[set[str], int]:
    """The digests of all labels, and how many pairs have one; a failed label was paid for too."""
    digests: set[str] = set()
    pairs = 0
    for stage in stages:
        for _, row in read_rows(run / stage / "labels.jsonl"):
            digests.add(row["label_digest"])
            pairs += 1
    return digests, pairs


def _money(prices: PricesSection, spent: Spending, labels: int) -> dict[str, Any]:
    money = {}
    if prices.price_per_million_tokens is not None:
        written = prices.price_per_million_written_tokens
        written = prices.price_per_million_tokens if written is None else written
        read = spent.prompt_tokens * prices.price_per_million_tokens
        money["judge"] = (read + spent.completion_tokens * written) / 1e6
    if prices.price_per_human_label is not None:
        money["people"] = labels * prices.price_per_human_label
    return {"prices": prices.model_dump(), "money": money} if money else {}


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
