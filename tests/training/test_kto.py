"""KTO: lone answers beside pairs, weights that balance them, and mismatched answers that fit the model."""

from __future__ import annotations

import json

import pytest
import torch

from common.rows import read_preferences
from training.data.pairs import encode_pairs, load_pairs
from training.dpo.items import balanced_weights, make_items, with_reference
from training.dpo.train import DpoConfig, DpoObjective, train
from training.models.attention import choose_layout
from training.run.logs import read_metrics
from training.run.runtime import Runtime

GOOD = ("Take the egg and boil it.", "Paris is the capital.", "You are welcome.")
BAD = ("I cannot help.", "No", "Go and ask a dog in a red house.")


def pair_rows(count):
    for i in range(count):
        yield {"prompt": f"Question {i % 5}: tell me", "chosen": GOOD[i % 3], "rejected": BAD[i % 3]}


def lone_rows(rows):
    """The same answers, each with a label of its own."""
    for row in rows:
        yield {"prompt": row["prompt"], "completion": row["chosen"], "label": True}
        yield {"prompt": row["prompt"], "completion": row["rejected"], "label": False}


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def config(tiny_dir, tmp_path):
    def make(rows, **changes):
        settings = {
            "model": str(tiny_dir),
            "data": [write(tmp_path / "rows.jsonl", rows)],
            "output_dir": tmp_path / "out",
            "loss": "kto",
            "precision": "float32",
            "batch_size": 8,
            "optimizer": {"learning_rate": 1e-3},
        }
        return DpoConfig(**{**settings, **changes})

    return make


@pytest.mark.parametrize("layout", ["packed", "rows"])
def test_lone_answers_have_the_loss_and_gradients_of_the_pairs_they_make(
    layout, config, tiny_model, tiny_tokenizer, make_model
):
    reference = make_model(len(tiny_tokenizer), seed=1)
    choose_layout(tiny_model)
    found = []
    for rows in (list(pair_rows(6)), list(lone_rows(pair_rows(6)))):
        settings = config(rows, desirable_weight=1.5, undesirable_weight=0.5)
        items = make_items(load_pairs(tiny_tokenizer, settings, lone_answers=True), mismatched=True)
        items = with_reference(
            reference, items, Runtime(settings), layout=choose_layout(reference), tokens=512
        )
        objective = DpoObjective(tiny_model, settings, layout)
        objective.baseline = 2.5
        loss, _ = objective(items)
        tiny_model.zero_grad()
        loss.backward()
        gradients = torch.cat([p.grad.flatten() for p in tiny_model.parameters()])
        found.append((loss.detach(), gradients, sum(item.weight for item in items)))
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)


def test_it_learns_from_lone_answers(config):
    rows = [row for i, row in enumerate(lone_rows(pair_rows(24))) if row["label"] or i % 3 == 0]
    settings = config(rows, epochs=8, held_out=0.2)
    result = train(settings)
    measured = [row for row in read_metrics(settings.output_dir / "metrics.jsonl") if "eval_loss" in row]
    # All prompts share their answers, so the baseline rises with the good ones': losses and margins tell, not signs.
    assert result.metrics["eval_loss"] < measured[0]["eval_loss"] - 0.03
    assert result.metrics["eval_margin"] > measured[0]["eval_margin"] + 0.2


@pytest.mark.parametrize(
    ("good", "bad", "expected"),
    [(3, 1, (1.0, 3.0)), (1, 4, (4.0, 1.0)), (2, 2, (1.0, 1.0)), (2, 0, (1.0, 1.0))],
)
def test_the_rarer_kind_weighs_as_much_as_the_other(tiny_tokenizer, config, good, bad, expected):
    rows = [{"prompt": "a", "completion": "b", "label": n < good} for n in range(good + bad)]
    items = make_items(load_pairs(tiny_tokenizer, config(rows), lone_answers=True), mismatched=False)
    assert balanced_weights(items) == expected
    pairs = make_items(
        load_pairs(tiny_tokenizer, config([{**row, "p": 0.8} for row in pair_rows(4)])), mismatched=False
    )
    assert balanced_weights(pairs) == (1.0, 1.0)


def test_a_run_weighs_kinds_by_its_training_data_unless_told(config, tmp_path, monkeypatch):
    rows = [{"prompt": f"a{n}", "completion": "b", "label": n % 4 == 0} for n in range(16)]
    seen = []
    forward = DpoObjective.forward

    def spy(self, items, mismatched=False):
        seen.append(self.weights)
        return forward(self, items, mismatched)

    monkeypatch.setattr(DpoObjective, "forward", spy)
    train(config(rows, max_steps=1))
    assert set(seen) == {(3.0, 1.0)}
    seen.clear()
    train(config(rows, max_steps=1, desirable_weight=1.5, output_dir=tmp_path / "told"))
    assert set(seen) == {(1.5, 1.0)}


def test_other_losses_and_bad_labels_are_one_line(config):
    lone = {"prompt": "a", "completion": "b", "label": True}
    for rows, changes, expected in (
        (
            [lone],
            {"loss": "dpo"},
            r"rows\.jsonl:1: holds answers with a label \(completion, label, prompt\), no two answers to compare",
        ),
        ([lone, {**lone, "label": 1}], {}, r"rows\.jsonl:2: label: 1 is not true or false"),
        ([{"prompt": "a", "completion": "b"}], {}, r"rows\.jsonl:1: label: is missing; true or false"),
        (
            [{"completion": "b", "label": True}],
            {},
            r"rows\.jsonl:1: has completion, label, .* \(prompt is missing beside completion\)",
        ),
    ):
        with pytest.raises(ValueError, match=expected) as caught:
            train(config(rows, **changes))
        assert "\n" not in str(caught.value)


def test_mismatched_answers_fit_where_the_pairs_do(config, tiny_tokenizer):
    """A long prompt and another prompt's long answer are together longer than the model's 512 positions."""
    rows = [
        {"prompt": "word " * 150, "chosen": "yes", "rejected": "no"},
        {"prompt": "short", "chosen": "word " * 150, "rejected": "no"},
    ]
    settings = config(rows, max_steps=1)
    items = make_items(encode_pairs(tiny_tokenizer, read_preferences(settings.data), 2048), mismatched=True)
    longest = max(item.tree.width for item in items)
    assert longest < 512 < len(items[0].tree.prefix) + len(items[1].tree.branches[0])
    assert [len(item.tree.prefix) + len(item.mismatched) <= longest for item in items] == [True, True]
    assert items[0].mismatched == items[1].tree.branches[0][: longest - len(items[0].tree.prefix)]
    assert items[1].mismatched == items[0].tree.branches[0]
    assert train(settings).metrics["loss"] > 0
