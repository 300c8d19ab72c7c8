"""Editing one principle of sixteen costs that principle's pairs, and the plan says how many before anything is asked.

Real draws, a real judge (the microworld's feedback model) and a real ledger; the answers' sense does not matter here.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from constitution import load
from constitution.plan import plan
from judges import InProcessJudge, LabelSettings, Ledger, Pair, label_pairs
from judges.ledger.statistics import PlanStatistics
from microworld import FEEDBACK_MODEL
from microworld.corpus import Corpus

PAIRS = 320
SETTINGS = LabelSettings(templates="microworld", mass_threshold=0.0)


@pytest.fixture(scope="module")
def pairs():
    corpus = Corpus("plan")
    found = []
    for i in range(PAIRS):
        request = corpus.request()
        a, b = corpus.pair(request)
        found.append(Pair(id=f"pair-{i:04d}", prompt=({"role": "user", "content": request.text},), a=a, b=b))
    return found


@pytest.mark.slow
def test_an_edit_of_one_principle_of_sixteen_asks_what_the_plan_foretold(pairs, tmp_path):
    before = load("hhh@1.0.0")
    enabled = [p for p in before.comparison if p.enabled]
    assert len(enabled) == 16
    edited = replace(enabled[5], question="Which answer is kinder?")
    after = replace(
        before, comparison=tuple(edited if p.id == edited.id else p for p in before.comparison), version=None
    )
    judge = InProcessJudge(FEEDBACK_MODEL)
    with Ledger.open(f"sqlite:///{tmp_path}/ledger.db") as ledger:
        first = label_pairs(pairs, constitution=before, judge=judge, ledger=ledger, settings=SETTINGS)
        assert first.asked == 2 * PAIRS
        ids = [p.id for p in pairs]
        foretold = plan(before, after, pair_ids=ids, seed=SETTINGS.seed, statistics=PlanStatistics(ledger))
        second = label_pairs(pairs, constitution=after, judge=judge, ledger=ledger, settings=SETTINGS)
        drew = second.by_principle[edited.id]
    # A sixteenth of the pairs, give or take four standard deviations.
    share, expected = sum(drew.values()) / PAIRS, edited.weight / sum(p.weight for p in enabled)
    assert abs(share - expected) < 4 * (expected * (1 - expected) / PAIRS) ** 0.5
    assert second.asked == 2 * sum(drew.values()) == foretold.calls
    assert second.reused == PAIRS - sum(drew.values())
