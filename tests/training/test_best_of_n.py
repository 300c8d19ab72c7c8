"""Best-of-n pairs: which answers meet, what has no score, and a file that is whole or not there."""

from __future__ import annotations

import json

import pytest

from common.rows import Prompt, read_preferences
from training.best_of_n import BestOfNConfig, best_of_n_pairs, make
from training.errors import TrainingError

PROMPT = Prompt(id="p", prompt=[{"role": "user", "content": "?"}])


def texts(rows):
    return [(row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in rows]


def test_the_best_meets_the_worst_or_all_others():
    answers, scores = ["b", "a", "d", "c"], [1.0, 3.0, -1.0, 0.5]
    assert texts(best_of_n_pairs(PROMPT, answers, scores)) == [("a", "d")]
    rows = best_of_n_pairs(PROMPT, answers, scores, against="rest")
    assert texts(rows) == [("a", "b"), ("a", "c"), ("a", "d")]
    assert len({row["pair_id"] for row in rows}) == 3
    assert [(row["score_chosen"], row["score_rejected"]) for row in rows] == [
        (3.0, 1.0),
        (3.0, 0.5),
        (3.0, -1.0),
    ]
    assert texts(best_of_n_pairs(PROMPT, answers, scores, against="rest", min_gap=2.0)) == [
        ("a", "c"),
        ("a", "d"),
    ]


def test_what_has_no_score_takes_no_part():
    assert texts(best_of_n_pairs(PROMPT, ["a", "b", "c"], [None, 1.0, 0.0])) == [("b", "c")]
    assert best_of_n_pairs(PROMPT, ["a", "b"], [None, 1.0]) == []
    assert best_of_n_pairs(PROMPT, ["a", "b"], [1.0, 1.0]) == [], "neither is better"
    assert best_of_n_pairs(PROMPT, ["a", "a"], [1.0, 1.0]) == [], "the same answer twice"
    assert best_of_n_pairs(PROMPT, [], []) == []


def letters(conversations, responses):
    """The share of the letter e; nothing for an empty answer."""
    return [text.count("e") / len(text) if text else None for text in responses]


@pytest.fixture
def config(tiny_dir, tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    rows = [{"id": f"p{i}", "prompt": f"Question {i}"} for i in range(6)]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def build(**changes):
        settings = {
            "model": str(tiny_dir),
            "prompts": [prompts],
            "output": tmp_path / "data" / "pairs.jsonl",
            "rewards": [{"kind": "callable", "name": "letters"}],
            "max_new_tokens": 8,
            "n": 5,
        }
        return BestOfNConfig(**{**settings, **changes})

    return build


def test_pairs_of_a_model_train(config, tiny_dir, tmp_path):
    from training.dpo.train import DpoConfig, train

    made = make(config(), reward_functions={"letters": letters})
    pairs = read_preferences([made.output_dir])
    assert len(pairs) == made.metrics["pairs"] and 2 < len(pairs) <= 6
    for pair in pairs:
        assert letters([], [pair.chosen])[0] > letters([], [pair.rejected])[0]
    again = make(config(output=tmp_path / "again.jsonl", batch_size=3), reward_functions={"letters": letters})
    assert again.output_dir.read_bytes() == made.output_dir.read_bytes(), "the same draw, whatever the batch"
    dpo = DpoConfig(model=str(tiny_dir), data=[made.output_dir], output_dir=tmp_path / "out", max_steps=1)
    assert train(dpo).metrics["loss"] > 0


def test_nothing_is_written_when_no_pair_comes_of_it(config):
    with pytest.raises(TrainingError, match="not one pair came of 30 answers: 30 have no score") as caught:
        make(config(), reward_functions={"letters": lambda conversations, responses: [None] * len(responses)})
    assert "\n" not in str(caught.value)
    assert not config().output.exists()
    with pytest.raises(TrainingError, match=r"pairs\.jsonl: exists already"):
        config().output.parent.mkdir()
        config().output.touch()
        make(config(), reward_functions={"letters": letters})
