"""Direct preference optimisation: each loss is a plain slow one, has the right gradients, and learns."""

from __future__ import annotations

import json
import math
import random

import pytest
import torch

from common.rows import read_preferences
from training.data.packing import pack
from training.data.pairs import encode_pairs
from training.dpo.train import DpoConfig, DpoObjective, make_items, train, with_reference
from training.errors import Interrupted
from training.models.attention import choose_layout
from training.run.logs import read_metrics
from training.run.runtime import Runtime

LOSSES = ("dpo", "robust", "ipo", "kto", "orpo", "simpo")
GOOD = ("Take the egg and boil it.", "Paris is the capital.", "You are welcome.")
BAD = ("I cannot help.", "No", "Go and ask a dog in a red house.")


@pytest.fixture
def data(tmp_path):
    draw = random.Random(0)
    path = tmp_path / "pairs.jsonl"
    with path.open("w") as file:
        for i in range(24):
            row = {
                "pair_id": str(i),
                "prompt": [{"role": "user", "content": f"Question {i % 5}: tell me"}],
                "chosen": [{"role": "assistant", "content": draw.choice(GOOD)}],
                "rejected": [{"role": "assistant", "content": draw.choice(BAD)}],
                "p": draw.choice([0.6, 0.8, 1.0]),
            }
            file.write(json.dumps(row) + "\n")
    return path


@pytest.fixture
def config(tiny_dir, tmp_path, data):
    def make(**changes):
        settings = {
            "model": str(tiny_dir),
            "data": [data],
            "output_dir": tmp_path / "out",
            "precision": "float32",
            "batch_size": 8,
            "optimizer": {"learning_rate": 1e-3},
        }
        return DpoConfig(**{**settings, **changes})

    return make


def slow_logprob(model, prompt, answer):
    ids = torch.tensor([prompt + answer])
    logprobs = model(input_ids=ids).logits[0].log_softmax(-1)
    places = range(len(prompt) - 1, len(prompt) + len(answer) - 1)
    return torch.stack([logprobs[t, ids[0, t + 1]] for t in places]).sum()


def slow_loss(name, policy, reference, item, baseline):
    """One pair, scalar arithmetic in the papers' terms; the label's expectation spelt out."""
    prompt, (first, second) = item.tree.prefix, item.tree.branches

    def one_way(better, worse):
        w, l = slow_logprob(policy, prompt, better), slow_logprob(policy, prompt, worse)  # noqa: E741
        with torch.no_grad():
            rw, rl = slow_logprob(reference, prompt, better), slow_logprob(reference, prompt, worse)
        sigmoid = lambda x: 1 / (1 + torch.exp(-x))  # noqa: E731
        if name == "dpo":
            return -torch.log(sigmoid(0.1 * ((w - rw) - (l - rl))))
        if name == "robust":
            h = 0.1 * ((w - rw) - (l - rl))
            return (-(0.9) * torch.log(sigmoid(h)) + 0.1 * torch.log(sigmoid(-h))) / 0.8
        if name == "ipo":
            return ((w - rw) / len(better) - (l - rl) / len(worse) - 1 / 0.2) ** 2
        if name == "kto":
            good = 1.5 * (1 - sigmoid(0.1 * (w - rw - baseline)))
            return (good + 0.5 * (1 - sigmoid(0.1 * (baseline - (l - rl))))) / 2
        if name == "orpo":
            odds = [torch.exp(x) / (1 - torch.exp(x)) for x in (w / len(better), l / len(worse))]
            return -w / len(better) - 0.1 * torch.log(sigmoid(torch.log(odds[0] / odds[1])))
        return -torch.log(sigmoid(2.0 * (w / len(better) - l / len(worse)) - 1.0))

    return item.p * one_way(first, second) + (1 - item.p) * one_way(second, first)


@pytest.mark.parametrize("layout", ["packed", "rows"])
@pytest.mark.parametrize("name", LOSSES)
def test_loss_and_gradients_equal_a_plain_slow_reference(
    name, layout, tiny_model, tiny_tokenizer, make_model, config
):
    weights = {"desirable_weight": 1.5, "undesirable_weight": 0.5} if name == "kto" else {}
    settings = config(loss=name, **weights)
    reference = make_model(len(tiny_tokenizer), seed=1)
    pairs = encode_pairs(tiny_tokenizer, read_preferences(settings.data)[:5], 512)
    runtime = Runtime(settings)
    items = make_items(pairs, mismatched=name == "kto")
    baseline = 2.5 if name == "kto" else 0.0
    expected = sum(slow_loss(name, tiny_model, reference, item, baseline) for item in items)
    expected.backward()
    gradients = [p.grad.clone() for p in tiny_model.parameters()]
    tiny_model.zero_grad()
    if name not in ("orpo", "simpo"):
        items = with_reference(reference, items, runtime, layout=choose_layout(reference), tokens=512)
    choose_layout(tiny_model)
    objective = DpoObjective(tiny_model, settings, layout)
    objective.baseline = baseline
    loss, _ = objective(items)
    loss.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    scale = max(g.abs().max() for g in gradients)
    for parameter, gradient in zip(tiny_model.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad / scale, gradient / scale, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layout", ["packed", "rows"])
@pytest.mark.parametrize("name", LOSSES)
def test_no_gradient_on_prompt_and_padding(name, layout, tiny_model, tiny_tokenizer, config):
    """Only the states that predict an answer's token are pushed: the prompt's last one, and all but an answer's
    last."""
    pairs = encode_pairs(tiny_tokenizer, read_preferences(config().data)[:3], 512)
    items = make_items(pairs, mismatched=False)
    choose_layout(tiny_model)
    kept = []

    def keep(module, arguments):
        arguments[0].retain_grad()
        kept.append(arguments[0])

    # Registered first, so it sees the hidden states of all tokens before the head's are picked out.
    tiny_model.lm_head.register_forward_pre_hook(keep)
    DpoObjective(tiny_model, config(loss=name), layout)(items)[0].backward()
    touched = kept[0].grad.flatten(0, 1).abs().sum(-1).nonzero().squeeze(-1).tolist()
    packed = pack([item.tree for item in items], layout=layout)
    assert touched == sorted(set(packed.predictors_N.tolist()))


@torch.no_grad()
def test_kto_s_baseline_is_the_kl_on_mismatched_answers(tiny_model, tiny_tokenizer, make_model, config):
    settings = config(loss="kto")
    reference = make_model(len(tiny_tokenizer), seed=1)
    pairs = encode_pairs(tiny_tokenizer, read_preferences(settings.data)[:4], 512)
    items = make_items(pairs, mismatched=True)
    assert [i.mismatched for i in items] == [pairs[(n + 1) % 4].tree.branches[0] for n in range(4)]
    items = with_reference(reference, items, Runtime(settings), layout=choose_layout(reference), tokens=60)
    found, _ = DpoObjective(tiny_model, settings, choose_layout(tiny_model))(items, mismatched=True)
    expected = sum(
        slow_logprob(tiny_model, i.tree.prefix, i.mismatched)
        - slow_logprob(reference, i.tree.prefix, i.mismatched)
        for i in items
    )
    assert float(found) == pytest.approx(float(expected), rel=1e-4, abs=1e-3)


@pytest.mark.parametrize("name", LOSSES)
def test_it_learns(name, config):
    beta = {"ipo": 1.0}.get(name)
    settings = config(loss=name, beta=beta, epochs=8, held_out=0.2, targets="hard")
    result = train(settings)
    rows = read_metrics(settings.output_dir / "metrics.jsonl")
    assert rows[-1]["margin"] > rows[0]["margin"]
    assert result.metrics["eval_accuracy"] >= 0.75


def test_the_first_dpo_loss_is_log_2_and_a_soft_label_bounds_the_margin(config, data):
    data.write_text("".join(json.dumps({**json.loads(line), "p": 0.75}) + "\n" for line in data.open()))
    settings = config(epochs=40, beta=0.5, optimizer={"learning_rate": 3e-3})
    result = train(settings)
    rows = read_metrics(settings.output_dir / "metrics.jsonl")
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert result.metrics["margin"] == pytest.approx(math.log(3), abs=0.4)


@pytest.mark.parametrize("changes", [{"loss": "kto"}, {"lora": {"r": 4, "dropout": 0.1}}])
def test_resume_gives_the_same_losses(config, tmp_path, monkeypatch, changes):
    whole, parts = (config(epochs=2, output_dir=tmp_path / name, **changes) for name in ("whole", "parts"))
    first = train(whole)
    with monkeypatch.context() as patch:
        asked = iter([None, None, None, 15])
        patch.setattr("training.supervised.StopRequest.agreed", lambda self: next(asked))
        with pytest.raises(Interrupted):
            train(parts)
    assert train(parts, resume=True).metrics == first.metrics
    losses = [[row["loss"] for row in read_metrics(c.output_dir / "metrics.jsonl")] for c in (whole, parts)]
    assert losses[0] == losses[1]


def test_a_reference_without_a_use_contradicts_itself(config, tiny_dir):
    with pytest.raises(ValueError, match="reference is set, but loss simpo has none"):
        config(loss="simpo", reference=str(tiny_dir))


@pytest.mark.parametrize(
    ("field", "loss"),
    [
        ("flip_rate", "robust"),
        ("margin", "simpo"),
        ("desirable_weight", "kto"),
        ("undesirable_weight", "kto"),
    ],
)
def test_a_field_of_another_loss_contradicts_itself(config, field, loss):
    assert getattr(config(loss=loss, **{field: 0.3}), field) == 0.3
    with pytest.raises(ValueError, match=f"{field} belongs to loss {loss}, not to ipo"):
        config(loss="ipo", **{field: 0.3})
