"""What the judge did to a label set: its report, and the sample for a person with all that lies behind each label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from common.statistics import Share, share
from judges.audit.people import Agreement, agreement
from judges.audit.sample import sample
from judges.explain import Explanation, explain
from judges.ledger import Ledger, Verdict
from judges.ledger.reading import LabelledPair, judges_of, label_set_content, labelled_pairs
from judges.records import FAILURES, Label, Pair

BINS = 10


@dataclass(kw_only=True)
class LabelFigures:
    """Counts over labels; the shares are read off as properties.

    `scored` have a probability in both orders; of these, `flipped` name another winner when the responses swap
    places, and `bias` sums how much more probability the first slot got. `decided` have status ok; `unequal` of
    them are of different lengths, where the longer was chosen `longer` times. `margins` is a histogram of
    2 |p - 1/2| in ten bins.
    """

    labels: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    scored: int = 0
    flipped: int = 0
    first_slot: int = 0
    bias: float = 0.0
    difference: float = 0.0
    unequal: int = 0
    longer: int = 0
    margins: list[int] = field(default_factory=lambda: [0] * BINS)

    def add(self, pair: Pair, label: Label) -> None:
        """Counts one label."""
        self.labels += 1
        self.statuses[label.status] += 1
        p = label.p if label.p_raw is None else label.p_raw
        if p is not None:
            self.margins[min(BINS - 1, int(2 * abs(p - 0.5) * BINS))] += 1
        if label.p_ab is not None and label.p_ba is not None:
            self.scored += 1
            self.bias += label.p_ab - label.p_ba
            self.difference += abs(label.p_ab - label.p_ba)
            if (label.p_ab - 0.5) * (label.p_ba - 0.5) < 0:
                self.flipped += 1
                self.first_slot += label.p_ab > 0.5
        if label.status == "ok" and len(pair.a) != len(pair.b):
            self.unequal += 1
            self.longer += (len(pair.a) > len(pair.b)) == (label.winner == "a")

    @property
    def decided(self) -> Share:
        """Labels with a clear winner."""
        return share(self.statuses["ok"], self.labels)

    @property
    def failures(self) -> Share:
        """Labels without a probability."""
        return share(sum(self.statuses[status] for status in FAILURES), self.labels)

    @property
    def flips(self) -> Share:
        """Labels whose two orders name different winners."""
        return share(self.flipped, self.scored)

    @property
    def same_in_both_orders(self) -> Share:
        """Agreement between the two orders."""
        return share(self.scored - self.flipped, self.scored)

    @property
    def chose_longer(self) -> Share:
        """Decisions for the longer response, where one was longer."""
        return share(self.longer, self.unequal)

    @property
    def flips_to_first(self) -> Share:
        """Of the flips, those to whichever response stood first; the others went to the second."""
        return share(self.first_slot, self.flipped)

    @property
    def position_bias(self) -> float | None:
        """Probability that the first slot gets more than the second, in [-1, 1]; 0 for a judge that does not care."""
        return self.bias / self.scored if self.scored else None

    @property
    def mean_difference(self) -> float | None:
        """Mean distance of the two orders' probabilities, in [0, 1]."""
        return self.difference / self.scored if self.scored else None


@dataclass(frozen=True, kw_only=True)
class SampledPair:
    """One pair of the sample: what the judge was asked and said, and people's verdicts. Every text is hostile."""

    labelled: LabelledPair
    explanation: Explanation

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """What people said, oldest first."""
        return self.explanation.verdicts


@dataclass(frozen=True, kw_only=True)
class AuditReport:
    """The judge's report on one label set."""

    label_set: str
    made_with: dict[str, Any]
    judge: str
    overall: LabelFigures
    by_principle: dict[str, LabelFigures]
    people: Agreement
    sampled: tuple[SampledPair, ...]


def audit(
    ledger: Ledger,
    label_set: str,
    *,
    sampled: int,
    seed: int = 0,
    pair_ids: Collection[str] | None = None,
) -> AuditReport:
    """Measures a label set, or those of its labels that belong to `pair_ids`, in one pass and bounded memory.

    `sampled` pairs are drawn by `judges.audit.sample`. Raises LedgerError when there is no such label set.
    """
    content = label_set_content(ledger, label_set)
    overall = LabelFigures()
    by_principle: dict[str, LabelFigures] = {}

    def counted(labels: Iterable[LabelledPair]) -> Iterator[LabelledPair]:
        for one in labels:
            overall.add(one.pair, one.label)
            for name in one.label.principles:
                by_principle.setdefault(name, LabelFigures()).add(one.pair, one.label)
            yield one

    stream = counted(labelled_pairs(ledger, label_set, pair_ids=pair_ids))
    drawn = sample(stream, sampled, seed=seed)
    for _ in stream:
        pass  # a sample of none stops before the end
    explained = [SampledPair(labelled=x, explanation=explain(ledger, x.label.digest)) for x in drawn]
    return AuditReport(
        label_set=label_set,
        made_with=content,
        judge=_judge_names(ledger, content["judges"]),
        overall=overall,
        by_principle=dict(sorted(by_principle.items())),
        people=agreement(ledger, label_set, seed=seed),
        sampled=tuple(explained),
    )


def _judge_names(ledger: Ledger, digests: Collection[str]) -> str:
    """The models that judged, with their revisions."""
    return ", ".join(f"{judge.model} ({judge.revision[:12]})" for judge in judges_of(ledger, digests))
