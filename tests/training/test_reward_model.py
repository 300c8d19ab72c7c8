"""Reward models: the loss is a plain slow one, soft labels are used, and scores come back normalised."""

from __future__ import annotations

import json
import math
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.chat import encode_prompt, encode_response
from common.rows import read_preferences
from training.data.packing import Tree, pack
from training.data.pairs import PairItem, encode_pairs, load_pairs
from training.errors import Interrupted, TrainingError
from training.models.load import load_sequence_classifier, load_tokenizer
from training.models.policy import ValueModule
from training.reward_model import RewardModelConfig, RewardObjective, RewardScorer, score, train
from training.run.logs import read_metrics
from training.supervised import hold_out

GOOD = ("Take the egg and boil it.", "Paris is the capital of France.", "You are welcome.")
BAD = ("I cannot help with that at all, sorry.", "No", "Go and ask a dog in a red house.")


def rows(count=60, seed=0):
    draw = random.Random(seed)
    for i in range(count):
        good, bad = draw.choice(GOOD), draw.choice(BAD)
        yield {
            "pair_id": f"pair-{i}",
            "prompt": [{"role": "user", "content": f"Question {i % 7}: please tell me a short story"}],
            "chosen": [{"role": "assistant", "content": good}],
            "rejected": [{"role": "assistant", "content": bad}],
            "p": draw.choice([0.7, 0.9, 1.0]),
            "status": "ok",
            "principles": [],
            "label_digest": "",
        }


def write(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def config(tiny_dir, tmp_path):
    data = write(tmp_path / "pairs.jsonl", rows())

    def make(**changes):
        settings = {
            "model": str(tiny_dir),
            "data": [data],
            "output_dir": tmp_path / "out",
            "precision": "float32",
            "batch_size": 16,
            "optimizer": {"learning_rate": 3e-3},
        }
        return RewardModelConfig(**{**settings, **changes})

    return make


@pytest.fixture
def classifier(tiny_dir):
    torch.manual_seed(0)
    return load_sequence_classifier(str(tiny_dir), pad_token_id=0, new_head=True, seed=3)


def slow_loss(model, tokenizer, pairs, centring):
    """One answer at a time; scores as transformers reads them, the cross-entropy spelt out."""
    total = torch.tensor(0.0)
    for pair in pairs:
        scores = []
        for answer in (pair.chosen, pair.rejected):
            ids = torch.tensor([encode_prompt(tokenizer, pair.prompt) + encode_response(tokenizer, answer)])
            scores.append(model(input_ids=ids).logits[0, 0])
        probability = 1 / (1 + torch.exp(scores[1] - scores[0]))
        total = total - pair.p * probability.log() - (1 - pair.p) * (1 - probability).log()
        total = total + centring * (scores[0] + scores[1]) ** 2
    return total


@pytest.mark.parametrize("layout", ["packed", "rows"])
def test_loss_and_gradients_equal_a_plain_slow_reference(classifier, tiny_tokenizer, config, layout):
    pairs = read_preferences(config().data)[:6]
    expected = slow_loss(classifier, tiny_tokenizer, pairs, 0.01)
    expected.backward()
    gradients = {n: p.grad.clone() for n, p in classifier.named_parameters()}
    classifier.zero_grad()
    objective = RewardObjective(classifier, centring=0.01)
    assert objective.layout == "packed"
    objective.layout = layout
    loss, stats = objective(encode_pairs(tiny_tokenizer, pairs, 512))
    loss.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    for name, parameter in classifier.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-4, atol=1e-4)
    assert stats["accuracy"][1] == 6


def touched(model, loss_of):
    """Flat indices of the tokens whose last hidden state a loss has a gradient on."""
    kept = []

    def keep(module, arguments, output):
        output.last_hidden_state.retain_grad()
        kept.append(output.last_hidden_state)

    handle = model.model.register_forward_hook(keep)
    loss_of().backward()
    handle.remove()
    return kept[0].grad.flatten(0, 1).abs().sum(-1).nonzero().squeeze(-1).tolist()


@pytest.mark.parametrize("layout", ["packed", "rows"])
def test_only_an_answer_s_last_token_has_a_gradient(classifier, tiny_tokenizer, config, layout):
    """Not the prompt's tokens, not padding, not the answer's others."""
    items = encode_pairs(tiny_tokenizer, read_preferences(config().data)[:3], 512)
    objective = RewardObjective(classifier, centring=0.01)
    objective.layout = layout
    packed = pack([item.tree for item in items], layout=layout)
    assert packed.real_BT.all() == (layout == "packed")
    assert touched(classifier, lambda: objective(items)[0]) == sorted(packed.ends_K.tolist())


@pytest.mark.parametrize("layout", ["packed", "rows"])
def test_a_value_model_s_gradient_is_at_the_states_it_was_asked_for(
    classifier, tiny_tokenizer, config, layout
):
    items = encode_pairs(tiny_tokenizer, read_preferences(config().data)[:3], 512)
    module = ValueModule(classifier)
    packed = pack([item.tree for item in items], layout=layout)
    found = touched(classifier, lambda: module(packed, packed.predictors_N).square().sum())
    assert found == sorted(set(packed.predictors_N.tolist()))


def test_it_learns_reports_and_scores(config):
    settings = config(epochs=12, held_out=0.2)
    result = train(settings)
    assert result.metrics["eval_accuracy"] == 1.0
    assert result.metrics["eval_calibration_error"] < 0.2
    assert {"eval_length_correlation", "eval_longer_is_better", "reward_mean"} <= result.metrics.keys()
    assert result.metrics["held_out_pairs"] == 9  # at most 0.2 of 60, whole prompts
    saved = json.loads((settings.output_dir / "config.json").read_text())
    assert saved["architectures"] == ["LlamaForSequenceClassification"]
    assert saved["reward_std"] > 0
    prompt = [{"role": "user", "content": "Question 3: please tell me a short story"}]
    scores = score(settings.output_dir, [prompt] * 6, [*GOOD, *BAD])
    assert min(scores[:3]) > max(scores[3:])
    assert abs(sum(scores)) / 6 < 1
    raw = RewardScorer.load(settings.output_dir, normalise=False)([prompt], GOOD[:1])[0]
    assert scores[0] == pytest.approx((raw - saved["reward_mean"]) / saved["reward_std"], rel=1e-4)


def test_with_patience_the_figures_are_of_the_weights_that_are_kept(config, tmp_path):
    noise = list(rows())
    for row in noise[::2]:
        row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
    data = write(tmp_path / "noise.jsonl", noise)
    settings = config(data=[data], epochs=20, held_out=0.5, patience=2)
    result = train(settings)
    seen = [
        row["eval_loss"] for row in read_metrics(settings.output_dir / "metrics.jsonl") if "eval_loss" in row
    ]
    assert seen[-1] > min(seen)
    assert result.metrics["eval_loss"] == pytest.approx(min(seen), rel=1e-5)


def test_soft_labels_are_learnt_as_probabilities(config):
    """Every label says 0.75: the best margin is log(0.75 / 0.25), not infinity."""
    data = write(config().data[0], [{**row, "p": 0.75} for row in rows()])
    soft = train(config(data=[data], epochs=15, centring=0.0))
    assert soft.metrics["eval_margin"] == pytest.approx(math.log(3), abs=0.35)
    hard = train(
        config(data=[data], epochs=15, centring=0.0, targets="hard", output_dir=data.parent / "hard")
    )
    assert hard.metrics["eval_margin"] > 3


def test_scores_do_not_depend_on_the_batch_and_equal_transformers(config):
    train(config(max_steps=3))
    directory = config().output_dir
    scorer = RewardScorer.load(directory, normalise=False)
    conversations = [[{"role": "user", "content": text}] for text in ("a", "b c d", "a")]
    answers = ["x", "longer answer here", "<|end|> y"]
    together = scorer(conversations, answers)
    alone = [scorer([c], [a])[0] for c, a in zip(conversations, answers, strict=True)]
    assert together == pytest.approx(alone, abs=1e-5)
    tokenizer = load_tokenizer(str(directory))
    model = load_sequence_classifier(str(directory)).eval()
    ids = [
        torch.tensor(encode_prompt(tokenizer, c) + encode_response(tokenizer, a))
        for c, a in zip(conversations, answers, strict=True)
    ]
    padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=tokenizer.pad_token_id)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(i) for i in ids], batch_first=True)
    with torch.no_grad():
        plain = model(input_ids=padded, attention_mask=mask).logits.squeeze(-1).tolist()
    assert together == pytest.approx(plain, abs=1e-5)


@pytest.mark.parametrize("layout", ["packed", "rows"])
def test_answers_to_one_prompt_are_scored_in_passes_of_so_many_tokens(
    layout, classifier, tiny_tokenizer, monkeypatch
):
    scorer = RewardScorer(classifier, tiny_tokenizer, micro_batch_tokens=200)
    scorer.layout = layout
    prompt = [{"role": "user", "content": "Tell me a short story"}]
    answers = ["a cat " * (n % 7 + 1) for n in range(40)]
    expected = [scorer([prompt], [answer])[0] for answer in answers]
    passes = []

    def spy(trees, **settings):
        packed = pack(trees, **settings)
        passes.append(packed.input_ids_BT.numel())
        return packed

    monkeypatch.setattr("training.rewards.scoring.pack", spy)
    assert scorer([prompt] * 40, answers) == pytest.approx(expected, abs=1e-4)
    assert len(passes) > 1 and max(passes) <= 200


def test_an_answer_beyond_the_context_has_no_score(config):
    train(config(max_steps=1))
    prompt = [{"role": "user", "content": "a"}]
    scores = score(config().output_dir, [prompt, prompt], ["ok", "word " * 600])
    assert scores[0] is not None
    assert scores[1] is None


def test_padding_with_the_end_token_is_replaced(config, tiny_dir, tmp_path, make_tokenizer, tiny_model):
    tokenizer = make_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    directory = tmp_path / "padless"
    tiny_model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    train(config(model=str(directory), max_steps=1))
    saved = json.loads((config().output_dir / "config.json").read_text())
    assert saved["pad_token_id"] != tokenizer.eos_token_id
    assert load_tokenizer(str(config().output_dir)).pad_token_id == saved["pad_token_id"]


def test_too_many_failed_labels_are_refused(config, tmp_path, tiny_tokenizer):
    mixed = [
        {**row, "status": "refused" if i % 3 else "ok", "p": None if i % 3 else 1.0}
        for i, row in enumerate(rows())
    ]
    path = write(tmp_path / "mixed.jsonl", mixed)
    with pytest.raises(
        TrainingError, match=r"67% of the labels are not ok \(refused 40, ok 20\); max_not_ok allows 50%"
    ):
        train(config(data=[path]))
    assert len(load_pairs(tiny_tokenizer, config(data=[path], max_not_ok=0.7))) == 20
    with pytest.raises(TrainingError, match="no label has a status in tie"):
        load_pairs(tiny_tokenizer, config(data=[path], max_not_ok=1.0, statuses=["tie"]))


def test_pairs_that_cannot_be_right_are_left_out_and_said(config, tmp_path, tiny_tokenizer, capsys):
    """Two equal answers would count as wrong in the accuracy; a conversation that ends with the user has no answer."""
    turns = "\n\nHuman: Is tea good cold?\n\nAssistant: Yes."
    lines = [
        {"prompt": f"Is {n} even?", "chosen": "Yes.", "rejected": "No." if n % 4 else "Yes."}
        for n in range(40)
    ]
    lines += [{"chosen": f"{turns}\n\nHuman: thanks", "rejected": f"{turns}\n\nHuman: you are rude"}]
    path = write(tmp_path / "equal.jsonl", lines)
    items = load_pairs(tiny_tokenizer, config(data=[path]))
    assert len(items) == 30 and all(item.tree.branches[0] != item.tree.branches[1] for item in items)
    assert capsys.readouterr().err.splitlines() == [
        f"{path}:1, 5, 9 and 7 more: 10 rows left out: both answers are the same",
        f"{path}:41: 1 row left out: a conversation ends with the user's words, so there is no answer to compare",
    ]


def test_files_are_mixed_in_the_stated_shares(config, tmp_path, tiny_tokenizer):
    def human_rows(count):
        return [{**row, "pair_id": f"human-{n}"} for n, row in enumerate(rows(count))]

    human, machine = write(tmp_path / "human.jsonl", human_rows(20)), write(tmp_path / "ai.jsonl", rows(60))
    settings = config(data=[human, machine], shares=[0.5, 0.5])
    pairs = load_pairs(tiny_tokenizer, settings)
    assert sum(pair.id.startswith("human") for pair in pairs) == 20
    assert len({pair.id for pair in pairs}) == 40
    # The shares are of what is trained on: pairs that are too long are left out before.
    long = [{"role": "assistant", "content": "word " * 3000}]
    write(human, [{**row, "chosen": long} if n % 5 else row for n, row in enumerate(human_rows(20))])
    pairs = load_pairs(tiny_tokenizer, settings)
    assert [pair.id.startswith("human") for pair in pairs] == [True] * 4 + [False] * 4
    write(human, [{**row, "chosen": long} for row in human_rows(20)])
    with pytest.raises(TrainingError, match=r"human\.jsonl: max_length 2048: every pair is longer"):
        load_pairs(tiny_tokenizer, settings)
    with pytest.raises(ValueError, match="add up to 1"):
        config(data=[human, machine], shares=[0.5, 0.6])


def test_resume_gives_the_same_losses(config, tmp_path, monkeypatch):
    whole, parts = (
        config(epochs=2, output_dir=tmp_path / "whole"),
        config(epochs=2, output_dir=tmp_path / "parts"),
    )
    first = train(whole)
    with monkeypatch.context() as patch:
        asked = iter([None, None, 15])
        patch.setattr("training.supervised.StopRequest.agreed", lambda self: next(asked))
        with pytest.raises(Interrupted):
            train(parts)
    second = train(parts, resume=True)
    assert second.metrics == first.metrics
    losses = [[row["loss"] for row in read_metrics(c.output_dir / "metrics.jsonl")] for c in (whole, parts)]
    assert losses[0] == losses[1]


def test_an_encoder_can_be_the_backbone(tmp_path, config):
    from transformers import BertConfig, BertForMaskedLM, BertTokenizerFast

    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *"abcdefghijklmnopqrstuvwxyz",
        *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"),
        *"0123456789.:,",
    ]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    directory = tmp_path / "bert"
    tokenizer = BertTokenizerFast(vocab=str(tmp_path / "vocab.txt"))
    tokenizer.save_pretrained(directory)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(directory)
    result = train(config(model=str(directory), epochs=8))
    assert result.metrics["eval_accuracy"] > 0.9
    prompt = [{"role": "user", "content": "Question 3: please tell me a short story"}]
    good, bad = score(config().output_dir, [prompt] * 2, [GOOD[0], BAD[0]])
    assert good > bad


@given(prompts=st.lists(st.integers(0, 5), min_size=2, max_size=30), seed=st.integers(0, 9))
def test_all_pairs_of_a_prompt_are_held_out_or_none(prompts, seed):
    items = [
        PairItem(id=str(i), tree=Tree(prefix=(prompt,), branches=((1,), (2,))), p=1.0)
        for i, prompt in enumerate(prompts)
    ]
    learned, held_out = hold_out(items, 0.4, seed=seed)
    assert sorted([*learned, *held_out], key=lambda x: int(x.id)) == items and learned and held_out
    if len(set(prompts)) > 1:
        assert not {x.tree.prefix for x in learned} & {x.tree.prefix for x in held_out}
        sizes, count = [*map(prompts.count, set(prompts))], round(0.4 * len(items))
        assert count - max(sizes) < len(held_out) <= max(count, min(sizes))
    else:
        assert len(held_out) == round(0.4 * len(items))


def test_one_prompt_with_nearly_all_pairs_is_trained_on():
    items = [
        PairItem(id=str(i), tree=Tree(prefix=(i == 0,), branches=((1,), (2,))), p=1.0) for i in range(100)
    ]
    for seed in range(5):
        learned, held_out = hold_out(items, 0.1, seed=seed)
        assert (len(learned), [x.id for x in held_out]) == (99, ["0"])
