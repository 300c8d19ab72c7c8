"""Where a run's judgements are kept, and what its labels cost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from common.rows import read_rows
from flows.config import RunConfig
from flows.config.data import PricesSection
from flows.runs.record import RunRecord
from judges import Ledger
from judges.audit import verdicts_digest
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
