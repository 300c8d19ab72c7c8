"""Scores against a baseline: log-odds of both orders, bounded, and missing where there is nothing to say."""

from __future__ import annotations

import math

import pytest

from judges import Reading, ScriptedJudge
from judges.against import LIMIT, BaselineScorer, conversation_key

HELLO = [{"role": "user", "content": "Hello"}]
BYE = [{"role": "user", "content": "Bye"}]
BASELINES = {conversation_key(HELLO): "baseline"}


def first_option(p_by_text):
    """A judge that follows the content: the probability of the first option from the two responses shown."""

    def answer(call):
        text = call.messages[-1]["content"]
        place = {word: text.index(word) for word in (*p_by_text, "baseline") if word in text}
        word = next(w for w in place if w != "baseline")
        p = p_by_text[word]
        return p if place[word] < place["baseline"] else 1 - p

    return answer


@pytest.fixture
def make(make_constitution):
    constitution = make_constitution(kind="Which is kinder?", short="Which is shorter?")

    def build(answer, **settings):
        return BaselineScorer(ScriptedJudge(answer), constitution, BASELINES, **settings)

    return build


def test_log_odds_of_both_orders(make):
    scorer = make(first_option({"lovely": 0.9, "awful": 0.2, "certain": 1.0, "never": 0.0}), principles=2)
    found = scorer([HELLO] * 4, ["lovely", "awful", "certain", "never"])
    assert found == pytest.approx([math.log(9), -math.log(4), LIMIT, -LIMIT])


def test_a_judge_that_follows_the_slot_says_nothing(make):
    assert make(lambda call: 0.9)([HELLO], ["lovely"]) == [pytest.approx(0.0)]


def test_the_baseline_itself_is_as_good_as_itself_and_not_asked(make):
    assert make(lambda call: pytest.fail("asked"))([HELLO], ["baseline"]) == [0.0]


def test_what_cannot_be_scored_is_missing(make):
    calls = []

    def fails_once(call):
        calls.append(call)
        return Reading(status="timeout") if len(calls) == 1 else 0.7

    scorer = make(fails_once)
    assert scorer([HELLO, BYE, HELLO], ["x", "y", "z"]) == [None, None, pytest.approx(0.0)]
    assert len(calls) == 4, "both orders of two pairs; a prompt without a baseline is not asked"
