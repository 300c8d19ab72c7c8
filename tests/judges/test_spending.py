"""What labels cost: sums over the judgements that they name, each counted once."""

from __future__ import annotations

from dataclasses import replace

import pytest
import sqlalchemy as sa

from judges import LabelSettings, Reading, ScriptedJudge, label_pairs
from judges.ledger import schema
from judges.ledger.reading import judges_of, label_set_content, labelled_pairs
from judges.ledger.spending import Spending, spending

ONE = Reading(
    status="ok", logprobs=(-0.1, -2.4), prompt_tokens=100, completion_tokens=1, latency_s=0.25, cost=0.5
)


@pytest.fixture
def asked(ledger, make_constitution, make_pairs):
    """`asked(pairs, reading, principles)`: labels them; gives the label set's digest."""

    def start(pairs, reading=ONE, principles=2) -> str:
        report = label_pairs(
            pairs,
            constitution=make_constitution(kind="Which is kinder?", short="Which is shorter?"),
            judge=ScriptedJudge(lambda call: reading),
            ledger=ledger,
            settings=LabelSettings(principles=principles),
        )
        return report.label_set

    return start


def digests(ledger, label_set: str) -> dict[str, str]:
    return {x.pair.id: x.label.digest for x in labelled_pairs(ledger, label_set)}


def test_every_judgement_of_the_labels_is_counted(ledger, asked, make_pairs):
    found = digests(ledger, asked(make_pairs(510), principles=1))  # more than one list of values
    some = [digest for pair, digest in found.items() if pair < "pair-00010"]
    for labels, n in ((found.values(), 510), (some, 10)):
        together, recent = spending(ledger, set(labels), since=0.0)
        assert (
            together
            == recent
            == Spending(
                judgements=2 * n,
                prompt_tokens=200 * n,
                completion_tokens=2 * n,
                seconds=pytest.approx(0.5 * n),
                charged=pytest.approx(1.0 * n),
            )
        )
    assert spending(ledger, set(), since=0.0) == (Spending(), Spending())


def test_a_judgement_that_two_labels_share_is_paid_once(ledger, asked, make_pairs):
    pairs = make_pairs(5)
    again = [replace(pair, id=f"again-{pair.id}") for pair in pairs]
    found = digests(ledger, asked([*pairs, *again]))
    with ledger.read() as connection:
        made = connection.execute(sa.select(sa.func.count()).select_from(schema.judgements)).scalar_one()
    together, _ = spending(ledger, set(found.values()), since=0.0)
    assert len(set(found.values())) == 10 and together.judgements == made <= 40


def test_what_an_attempt_asked_itself_is_told_apart(ledger, asked, make_pairs):
    pairs = make_pairs(8)
    asked(pairs[:5])
    with ledger.read() as connection:
        last = connection.execute(sa.select(sa.func.max(schema.judgements.c.created_at))).scalar_one()
    label_set = asked(pairs, replace(ONE, cost=None))
    together, recent = spending(ledger, set(digests(ledger, label_set).values()), since=last + 1e-6)
    assert (together.judgements, recent.judgements) == (32, 12)
    assert together.charged == pytest.approx(10.0) and recent.charged is None


def test_the_judges_of_a_label_set_are_known_by_model_and_revision(ledger, asked, make_pairs):
    content = label_set_content(ledger, asked(make_pairs(2)))
    assert judges_of(ledger, content["judges"]) == [ScriptedJudge(lambda call: ONE).identity]
    assert judges_of(ledger, []) == []
