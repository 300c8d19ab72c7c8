"""What labels cost: the ledger's own figures, and money only at prices that somebody stated."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flows.report.cost_plot import cost_figure
from flows.report.costs import cost_rows, cost_sentences, price_words
from flows.report.figures import svg
from flows.runs.costs import label_costs


def test_costs_are_the_ledgers_and_money_only_at_stated_prices(built, labels_folder):
    session, _ = built
    costs = label_costs(session, [labels_folder])
    assert costs["labels"] == 30 and costs["judge"] == costs["attempt"]
    assert costs["judge"] == {
        "judgements": 120,
        "prompt_tokens": 6000,
        "completion_tokens": 120,
        "seconds": pytest.approx(60.0),
        "charged": None,
    }
    assert costs["money"] == {"judge": pytest.approx(6120 * 2.0 / 1e6), "people": 15.0}
    (said,) = cost_sentences(costs)
    assert "6,120 tokens and 60 s of the judge, 0.012 at the stated price" in said
    assert said.endswith("labels by people would have cost 15.00, 1,225 times as much.")
    assert (
        price_words(costs)
        == "At the prices that the configuration states: 2 a million tokens, 0.5 a label by a person."
    )
    assert ["money, labels by people", "15.00", "", "0.50"] in cost_rows(costs)
    text, draw = cost_figure(costs)
    assert text == said and svg(draw).count("money at the stated prices") == 1

    free = session.config.model_copy(update={"report": type(session.config.report)()})
    unpriced = label_costs(replace(session, config=free), [labels_folder])
    assert "money" not in unpriced and "prices" not in unpriced and price_words(unpriced) == ""
    assert "price" not in cost_sentences(unpriced)[0] and not any(
        "money" in row[0] for row in cost_rows(unpriced)
    )
    assert "money" not in svg(cost_figure(unpriced)[1])
    assert (
        label_costs(session, []) == {}
        and cost_rows({}) == [] == cost_sentences({})
        and cost_figure({}) is None
    )


def test_written_tokens_may_have_a_price_of_their_own(built, labels_folder):
    session, _ = built
    prices = type(session.config.report)(price_per_million_tokens=1.0, price_per_million_written_tokens=100.0)
    config = session.config.model_copy(update={"report": prices})
    costs = label_costs(replace(session, config=config), [labels_folder])
    assert costs["money"] == {"judge": pytest.approx((6000 + 120 * 100) / 1e6)}
    assert (
        price_words(costs)
        == "At the prices that the configuration states: 1 a million tokens read, 100 written."
    )


def test_a_later_attempt_paid_nothing_for_labels_that_were_there(built, labels_folder):
    session, _ = built
    later = replace(session.attempt, started_at="2999-01-01T00:00:00+00:00")
    costs = label_costs(replace(session, attempt=later), [labels_folder])
    assert costs["attempt"]["judgements"] == 0 < costs["judge"]["judgements"]
    assert "0 and 0 s of it in this attempt" in cost_sentences(costs)[0]
