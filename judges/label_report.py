"""What a labelling run did, in numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from judges.records import FAILURES, Status


@dataclass(frozen=True, kw_only=True)
class LabelReport:
    """What a labelling run did.

    `label_set` is the digest under which the ledger knows these labels. `statuses` counts labels. `asked`
    counts calls made now, `known` judgements that the ledger had, `reused` labels that it had.
    """

    label_set: str
    pairs: int = 0
    statuses: Mapping[Status, int] = field(default_factory=dict)
    by_principle: Mapping[str, Mapping[Status, int]] = field(default_factory=dict)
    asked: int = 0
    known: int = 0
    reused: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    seconds: float = 0.0

    def rate(self, *statuses: Status) -> float:
        """Share of the labels that have one of `statuses`, in [0, 1]; 0 without labels."""
        return sum(self.statuses.get(s, 0) for s in statuses) / self.pairs if self.pairs else 0.0

    @property
    def failure_rate(self) -> float:
        """Share of the labels without a probability."""
        return self.rate(*FAILURES)
