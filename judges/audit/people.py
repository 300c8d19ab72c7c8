"""How far people and the judge agree, and people's verdicts as pairs with known answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

import sqlalchemy as sa

from common.record import Record
from common.statistics import Estimate, Share, share, with_interval
from judges.agreement import alpha_of_counts, cohen_kappa
from judges.known import KnownPair
from judges.ledger import Ledger, schema
from judges.ledger.reading import labelled_pairs
from judges.records import Status, preferred


@dataclass(frozen=True, kw_only=True)
class Rated:
    """A label that people judged. `judge` is "a", "b" or "tie" (undecided), None where the judgement failed.

    `verdicts` holds each reviewer's last word, `person` the last word of all, which overrides the label.
    """

    pair_id: str
    status: Status
    judge: str | None
    verdicts: dict[str, str] = field(default_factory=dict)
    person: str = ""


@dataclass(frozen=True, kw_only=True)
class Agreement(Record):
    """People beside the judge, over the labels of a set that both judged.

    `same` is the plain share, `kappa` Cohen's between the judge and people's last word, `alpha` Krippendorff's
    over the judge and every reviewer. `failed` counts pairs that people judged and the judge did not manage to.
    """

    pairs: int
    failed: int
    same: Share
    kappa: Estimate | None
    alpha: Estimate | None
    reviewers: dict[str, int]


def rated_pairs(ledger: Ledger, label_set: str) -> list[Rated]:
    """The labels of a set that people judged, by pair id."""
    labels, members, verdicts = schema.labels, schema.members, schema.verdicts
    query = (
        sa.select(labels.c.pair_id, labels.c.p, labels.c.status, verdicts.c.winner, verdicts.c.who)
        .select_from(members)
        .join(labels, members.c.label == labels.c.digest)
        .join(verdicts, sa.and_(verdicts.c.item == labels.c.item, verdicts.c.pair_id == labels.c.pair_id))
        .where(members.c.label_set == label_set)
        .order_by(verdicts.c.seq)
    )
    found: dict[str, Rated] = {}
    with ledger.read() as connection:
        for row in connection.execute(query):
            before = found.get(row.pair_id)
            found[row.pair_id] = Rated(
                pair_id=row.pair_id,
                status=row.status,
                judge=judged(row.status, row.p),
                verdicts={**(before.verdicts if before else {}), row.who: row.winner},
                person=row.winner,
            )
    return [found[pair_id] for pair_id in sorted(found)]


def agreement(
    ledger: Ledger, label_set: str, *, statuses: Collection[Status] | None = None, seed: int = 0
) -> Agreement:
    """Agreement over a label set, or over its labels of some statuses; intervals are 95%.

    Wilson's for the share, bootstrap over pairs for kappa and alpha; these are None where there is nothing to
    compare.
    """
    people = [r for r in rated_pairs(ledger, label_set) if statuses is None or r.status in statuses]
    both = [r for r in people if r.judge is not None]
    counts = Counter((r.judge, r.person) for r in both)
    units = Counter((r.judge, *sorted(r.verdicts.values())) for r in both)
    reviewers = Counter(who for r in people for who in r.verdicts)
    return Agreement(
        pairs=len(both),
        failed=len(people) - len(both),
        same=share(sum(n for (judge, person), n in counts.items() if judge == person), len(both)),
        kappa=with_interval(counts, cohen_kappa, seed=seed) if both else None,
        alpha=with_interval(units, alpha_of_counts, seed=seed) if both else None,
        reviewers=dict(sorted(reviewers.items())),
    )


def known_from_verdicts(ledger: Ledger, label_set: str) -> list[KnownPair]:
    """The pairs that people decided, as an exam's pairs with known answers, by pair id.

    An audit shows the doubtful pairs first, so a judge is right about fewer of these than of all pairs.
    """
    decided = {r.pair_id: r.person for r in rated_pairs(ledger, label_set) if r.person in ("a", "b")}
    return [
        KnownPair(pair=x.pair, winner="a" if decided[x.pair.id] == "a" else "b")
        for x in labelled_pairs(ledger, label_set, pair_ids=decided)
        if x.pair.a != x.pair.b  # nobody can be right about two equal answers
    ]


def judged(status: Status, p: float | None) -> str | None:
    """The judge's verdict as a person would have given it: "a", "b", "tie"; None where the judgement failed."""
    if p is None:
        return None
    return (preferred(p) if status == "ok" else None) or "tie"
