"""What a run's configuration says of prices reaches the judge, and each judgement in the ledger."""

from __future__ import annotations

import pytest

from engines.client import Client
from flows.config import load_config
from flows.labelling.judge import make_judge
from flows.stages import evaluate, judge_exam, labels
from judges import Call

TOP = [{"token": "A", "logprob": -0.3}, {"token": "B", "logprob": -1.5}]
ANSWER = {
    "choices": [{"index": 0, "message": {"content": "A"}, "logprobs": {"content": [{"top_logprobs": TOP}]}}],
    "usage": {"prompt_tokens": 2_000, "completion_tokens": 100},
}


@pytest.mark.parametrize(
    ("prices", "cost"),
    [
        ({}, None),
        ({"price_per_million_tokens": 3.0}, 0.0063),
        ({"price_per_million_tokens": 3.0, "price_per_million_written_tokens": 10.0}, 0.007),
        ({"price_per_million_tokens": 0.0}, 0.0),
    ],
)
def test_a_stated_price_is_what_each_call_costs(tmp_path, make_run, tiny_model, monkeypatch, prices, cost):
    monkeypatch.setattr(Client, "page", lambda *_: {"data": [{"id": "m"}]})
    monkeypatch.setattr(Client, "post", lambda *_, **__: ANSWER)
    judge = {"kind": "openai", "model": "m", "endpoints": ["http://127.0.0.1:9/v1"]}
    config = load_config(make_run(tmp_path, tiny_model, judge=judge, prices=prices))
    for stage in (labels.STAGE, judge_exam.STAGE, evaluate.STAGE):
        made = make_judge(stage.tuning(config)["judge"])
        reading = made.ask([Call(messages=({"role": "user", "content": "?"},))])[0]
        assert reading.cost == (None if cost is None else pytest.approx(cost))
        made.close()
