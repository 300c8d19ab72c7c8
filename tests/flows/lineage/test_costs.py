"""What labels cost: the ledger's own figures, and money only at prices that somebody stated."""

from __future__ import annotations

from dataclasses import replace

import pytest

from common.sections import texts
from flows.labelling.ledger import label_costs
from flows.report.costs import Costs, cost_plot, cost_section, cost_sentences
from flows.report.drawing import svg


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
    costs = Costs.from_json(costs)
    (said,) = cost_sentences(costs)
    assert "6,120 tokens and 60 s of the judge, 0.012 at the stated price" in said
    assert said.endswith("labels by people would have cost 15.00, 1,225 times as much.")
    section = cost_section(costs)
    assert section.text.endswith("configuration states: 2 a million tokens, 0.5 a label by a person.")
    assert ["money, labels by people", "15.00", "", "0.50"] in texts(section.rows)
    plot = cost_plot(costs)
    assert plot.text == said and svg(plot.draw).count("money at the stated prices") == 1

    free = session.config.model_copy(update={"prices": type(session.config.prices)()})
    unpriced = label_costs(replace(session, config=free), [labels_folder])
    assert "money" not in unpriced and "prices" not in unpriced
    unpriced = Costs.from_json(unpriced)
    assert "price" not in cost_sentences(unpriced)[0] + cost_section(unpriced).text
    assert not any("money" in row[0] for row in texts(cost_section(unpriced).rows))
    assert "money" not in svg(cost_plot(unpriced).draw)
    assert label_costs(session, []) == {} and cost_sentences(None) == []
    assert cost_section(None).empty and cost_plot(None) is None


def test_written_tokens_may_have_a_price_of_their_own(built, labels_folder):
    session, _ = built
    prices = type(session.config.prices)(price_per_million_tokens=1.0, price_per_million_written_tokens=100.0)
    config = session.config.model_copy(update={"prices": prices})
    costs = label_costs(replace(session, config=config), [labels_folder])
    assert costs["money"] == {"judge": pytest.approx((6000 + 120 * 100) / 1e6)}
    said = cost_section(Costs.from_json(costs)).text
    assert said.endswith("the configuration states: 1 a million tokens read, 100 written.")


def test_a_later_attempt_paid_nothing_for_labels_that_were_there(built, labels_folder):
    session, _ = built
    later = replace(session.attempt, started_at="2999-01-01T00:00:00+00:00")
    costs = label_costs(replace(session, attempt=later), [labels_folder])
    assert costs["attempt"]["judgements"] == 0 < costs["judge"]["judgements"]
    assert "0 and 0 s of it in this attempt" in cost_sentences(Costs.from_json(costs))[0]
