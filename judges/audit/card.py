"""The principle scorecard: what each principle of a constitution does to the labels of a set."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, islice

import sqlalchemy as sa

from common.statistics import Share, share
from judges.asking.combine import Combined, Margins, combine
from judges.audit.people import rated_pairs
from judges.ledger import Ledger, schema
from judges.ledger.reading import LabelledPair, judges_by_digest, label_set_content, labelled_pairs
from judges.ledger.rows import to_reading
from judges.ledger.statements import CHUNK, chunks
from judges.records import Order, Reading, preferred
from judges.settings import LabelSettings


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Two principles on the pairs that drew both: how often they name the same winner, and Pearson's r of their p."""

    other: str
    same: Share
    correlation: float | None


@dataclass(frozen=True, kw_only=True)
class CardRow:
    """One principle.

    drawn: labels that drew it. statuses: of its own verdict, its judgements taken alone. flips: orders that name
    different winners. with_people: its own decision beside people's. sole: labels that drew no other principle and
    would not exist without it. changed: of the other labels with a probability, those whose winner or status is
    another when its judgements are left out. overlaps: the principles drawn together with it, most often first.
    """

    principle: str
    drawn: int
    statuses: Mapping[str, int]
    flips: Share
    with_people: Share
    sole: int
    changed: Share
    overlaps: tuple[Overlap, ...]


@dataclass(frozen=True, kw_only=True)
class Card:
    """The principle scorecard of one label set."""

    label_set: str
    constitution: str
    labels: int
    rows: tuple[CardRow, ...]


@dataclass(frozen=True, kw_only=True)
class _Vote:
    """All orders of one principle, judge and rationale."""

    principle: str
    orders: tuple[Order, ...]
    readings: tuple[Reading, ...]


@dataclass(kw_only=True)
class _Tally:
    drawn: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    scored: int = 0
    flipped: int = 0
    people: int = 0
    agreed: int = 0
    sole: int = 0
    others: int = 0
    changed: int = 0


def report_card(ledger: Ledger, label_set: str) -> Card:
    """Reads every judgement of a label set again, a few hundred labels at a time.

    Raises LedgerError when there is no such label set.
    """
    content = label_set_content(ledger, label_set)
    margins = LabelSettings.model_validate(content["settings"]).margins
    people = {r.pair_id: r.person for r in rated_pairs(ledger, label_set)}
    tallies: dict[str, _Tally] = {}
    together: dict[tuple[str, str], _Moments] = {}
    labels = 0
    for labelled, votes in _with_votes(ledger, label_set):
        labels += 1
        alone = _alone(votes, margins, labelled.pair.id)
        for name in dict.fromkeys(labelled.label.principles):
            tally = tallies.setdefault(name, _Tally())
            tally.drawn += 1
            own = alone.get(name)
            tally.statuses["error" if own is None else own.status] += 1
            if own is not None:
                _count(tally, own, people.get(labelled.pair.id))
            _leave_out(tally, name, labelled, votes, margins)
        scored = [(n, c.p) for n, c in sorted(alone.items()) if c.p is not None]
        for (first, p), (second, q) in combinations(scored, 2):
            assert p is not None and q is not None
            together.setdefault((first, second), _Moments()).add(p, q)
    return Card(
        label_set=label_set,
        constitution=content["constitution"]["ref"],
        labels=labels,
        rows=tuple(_row(name, tally, together) for name, tally in sorted(tallies.items())),
    )


def _count(tally: _Tally, own: Combined, person: str | None) -> None:
    if own.p_ab is not None and own.p_ba is not None:
        tally.scored += 1
        tally.flipped += (own.p_ab - 0.5) * (own.p_ba - 0.5) < 0
    if own.status == "ok" and own.p is not None and person in ("a", "b"):
        tally.people += 1
        tally.agreed += preferred(own.p) == person


def _leave_out(
    tally: _Tally, name: str, labelled: LabelledPair, votes: Sequence[_Vote], margins: Margins
) -> None:
    rest = [vote for vote in votes if vote.principle != name]
    if not rest:
        tally.sole += 1
    elif labelled.label.p is not None and (left := _combined(rest, margins, labelled.pair.id)) is not None:
        tally.others += 1
        tally.changed += _outcome(left.status, left.p) != _outcome(labelled.label.status, labelled.label.p)


def _outcome(status: str, p: float | None) -> str:
    return (preferred(p) if status == "ok" else None) or status


def _alone(votes: Sequence[_Vote], margins: Margins, pair_id: str) -> dict[str, Combined]:
    """Each principle's verdict from its own judgements."""
    found = {}
    for name in dict.fromkeys(vote.principle for vote in votes):
        own = _combined([vote for vote in votes if vote.principle == name], margins, pair_id)
        if own is not None:
            found[name] = own
    return found


def _combined(votes: Sequence[_Vote], margins: Margins, pair_id: str) -> Combined | None:
    """None where judgements are missing: calls that were lost leave none."""
    shown = votes[0].orders
    if any(vote.orders != shown or len(vote.readings) != len(shown[0]) for vote in votes):
        return None
    # The pair of a ranking is named by its id: `<id>:ac`.
    pair = "ab" if len(shown[0]) == 2 else pair_id[-2:]
    return combine([vote.readings for vote in votes], margins, shown=shown, pair=pair)


def _with_votes(ledger: Ledger, label_set: str) -> Iterator[tuple[LabelledPair, list[_Vote]]]:
    stream = labelled_pairs(ledger, label_set)
    # Another build of a server, or another name of a folder, is no other judge.
    judges = {digest: (judge.model, judge.revision) for digest, judge in judges_by_digest(ledger).items()}
    while page := list(islice(stream, CHUNK)):
        keys = [key for one in page for key in one.label.judgements]
        rows = {row.key: row for row in _judgements(ledger, keys)}
        for one in page:
            grouped: dict[tuple[str, tuple[str, str], int], list] = {}
            for key in one.label.judgements:
                if (row := rows.get(key)) is not None:
                    who = judges[row.judge]
                    grouped.setdefault((row.principle_id, who, row.sample), []).append(row)
            yield (
                one,
                [
                    _Vote(
                        principle=principle,
                        orders=tuple(row.shown for row in group),
                        readings=tuple(to_reading(row) for row in group),
                    )
                    for (principle, _, _), group in grouped.items()
                ],
            )


def _judgements(ledger: Ledger, keys: Sequence[str]) -> Iterator[sa.Row]:
    table = schema.judgements
    with ledger.read() as connection:
        for chunk in chunks(keys):
            yield from connection.execute(sa.select(table).where(table.c.key.in_(chunk)))


@dataclass(kw_only=True)
class _Moments:
    """Sums for Pearson's correlation, and how often both name the same winner."""

    n: int = 0
    same: int = 0
    x: float = 0.0
    y: float = 0.0
    xx: float = 0.0
    yy: float = 0.0
    xy: float = 0.0

    def add(self, p: float, q: float) -> None:
        x, y = p - 0.5, q - 0.5
        self.n += 1
        self.same += (x > 0) == (y > 0)
        self.x, self.y = self.x + x, self.y + y
        self.xx, self.yy, self.xy = self.xx + x * x, self.yy + y * y, self.xy + x * y

    @property
    def correlation(self) -> float | None:
        """Pearson's r; None for fewer than three pairs, or where one of the two never varies."""
        spread = (self.n * self.xx - self.x**2) * (self.n * self.yy - self.y**2)
        if self.n < 3 or spread <= 1e-12:
            return None
        return (self.n * self.xy - self.x * self.y) / math.sqrt(spread)


def _row(name: str, tally: _Tally, together: Mapping[tuple[str, str], _Moments]) -> CardRow:
    overlaps = [
        Overlap(
            other=second if first == name else first,
            same=share(found.same, found.n),
            correlation=found.correlation,
        )
        for (first, second), found in together.items()
        if name in (first, second)
    ]
    return CardRow(
        principle=name,
        drawn=tally.drawn,
        statuses=dict(tally.statuses.most_common()),
        flips=share(tally.flipped, tally.scored),
        with_people=share(tally.agreed, tally.people),
        sole=tally.sole,
        changed=share(tally.changed, tally.others),
        overlaps=tuple(sorted(overlaps, key=lambda x: (-x.same.n, x.other))),
    )
