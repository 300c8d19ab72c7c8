"""What a run's labels cost: tokens and seconds of the judge, and money where the configuration states prices."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from common.rows import read_rows
from flows.labelling.gates import existing_ledger
from judges.ledger.spending import Spending, spending

if TYPE_CHECKING:
    from pathlib import Path

    from flows.config.data import ReportSection
    from flows.pipeline.session import Session


def label_costs(session: Session, stages: Iterable[str]) -> dict[str, Any]:
    """Costs of the labels that these labelling stages made, by their folders in the run directory.

    `judge` sums the judgements behind all of the labels, whenever they were made, `attempt` those that this attempt
    made. `money` is there where a price is stated: `judge` for the tokens of all judgements, `people` for as many
    labels made by people. Empty without labels or ledger.
    """
    digests, pairs = _labels(session.run.path, stages)
    began = datetime.fromisoformat(session.attempt.started_at).timestamp()
    with existing_ledger(session.config) as ledger:
        if ledger is None or not digests:
            return {}
        together, recent = spending(ledger, digests, since=began)
    return {
        "labels": pairs,
        "judge": asdict(together),
        "attempt": asdict(recent),
        **_money(session.config.report, together, pairs),
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


def _money(prices: ReportSection, spent: Spending, labels: int) -> dict[str, Any]:
    money = {}
    if prices.price_per_million_tokens is not None:
        written = prices.price_per_million_written_tokens
        written = prices.price_per_million_tokens if written is None else written
        read = spent.prompt_tokens * prices.price_per_million_tokens
        money["judge"] = (read + spent.completion_tokens * written) / 1e6
    if prices.price_per_human_label is not None:
        money["people"] = labels * prices.price_per_human_label
    return {"prices": prices.model_dump(), "money": money} if money else {}
