"""Packing and prefix sharing change no value: hidden states, log-probabilities and gradients."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data.packing import Tree, batch_tokens, pack
from training.models import cpu_attention
from training.models.attention import NAME, choose_layout
from training.models.logprobs import selected_logprobs, sum_by_branch
from training.supervised import batch_of_step, micro_batches, share_out


def random_trees(shapes, vocabulary=390, seed=0):
    draw = random.Random(seed)
    ids = lambda n: tuple(draw.randrange(5, vocabulary) for _ in range(n))  # noqa: E731
    return [Tree(prefix=ids(prefix), branches=tuple(ids(n) for n in branches)) for prefix, branches in shapes]


SHAPES = [(20, (5, 9)), (3, ()), (31, (1, 0)), (7, (4,)), (12, (6, 6, 2, 11))]


def slow_logprobs(model, trees):
    """Every branch alone, one forward pass each."""
    totals = []
    for tree in trees:
        for branch in tree.branches:
            ids = torch.tensor([tree.prefix + branch])
            logprobs = model(input_ids=ids).logits[0].log_softmax(-1)
            places = range(len(tree.prefix) - 1, len(ids[0]) - 1)
            totals.append(sum((logprobs[t, ids[0, t + 1]] for t in places), torch.tensor(0.0)))
    return torch.stack(totals)


@pytest.mark.parametrize("layout", ["packed", "rows"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_logprobs_and_gradients_are_those_of_one_branch_at_a_time(tiny_model, layout, checkpointing):
    trees = random_trees(SHAPES)
    expected = slow_logprobs(tiny_model, trees)
    expected.sin().sum().backward()
    gradients = [p.grad.clone() for p in tiny_model.parameters()]
    tiny_model.zero_grad()
    assert choose_layout(tiny_model) == "packed"
    if checkpointing:
        tiny_model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    packed = pack(trees, layout=layout)
    found = sum_by_branch(selected_logprobs(tiny_model, packed), packed)
    found.sin().sum().backward()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for parameter, gradient in zip(tiny_model.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-4)


def test_a_packed_model_still_takes_ordinary_batches(tiny_model):
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    before = tiny_model(input_ids=ids, attention_mask=mask).logits
    choose_layout(tiny_model)
    assert tiny_model.config._attn_implementation == NAME
    torch.testing.assert_close(tiny_model(input_ids=ids, attention_mask=mask).logits, before)


@pytest.mark.parametrize(
    ("kind", "changes", "expected"),
    [
        ("Mistral", {"sliding_window": 6}, "packed"),
        ("Qwen3", {"head_dim": 8}, "packed"),
        ("GPT2", {"n_layer": 2, "n_embd": 32, "n_head": 4}, "packed"),
        ("Gemma2", {"head_dim": 8}, "rows"),
        ("Bloom", {"n_layer": 2, "n_head": 4}, "rows"),
    ],
)
def test_each_architecture_gets_a_layout_that_changes_nothing(kind, changes, expected):
    import transformers

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    common = {"vocab_size": 395, "num_key_value_heads": 2, "pad_token_id": 0, "initializer_range": 0.2}
    ends = {"bos_token_id": None, "eos_token_id": 1}
    config = getattr(transformers, f"{kind}Config")(**{**sizes, **common, **ends, **changes})
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    trees = random_trees(SHAPES)
    with torch.no_grad():
        slow = slow_logprobs(model, trees)
        layout = choose_layout(model)
        assert layout == expected
        packed = pack(trees, layout=layout)
        found = sum_by_branch(selected_logprobs(model, packed), packed)
    torch.testing.assert_close(found, slow, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("lengths", [range(1025), range(0)])
@pytest.mark.parametrize("window", [None, 40])
def test_long_prompts_attend_once_and_in_slices(monkeypatch, lengths, window):
    """Both ways to compute attention, over slices of queries and under the masks of shared prompts."""
    import transformers

    monkeypatch.setattr(cpu_attention, "LENGTHS", lengths)
    torch.manual_seed(0)
    config = transformers.MistralConfig(
        vocab_size=395,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        initializer_range=0.2,
        sliding_window=window,
    )
    model = transformers.MistralForCausalLM(config)
    trees = random_trees([(200, (30, 150, 0)), (260, ()), (3, (140, 9)), (150, (20, 21))])
    expected = slow_logprobs(model, trees)
    expected.sin().sum().backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    assert choose_layout(model) == "packed"
    packed = pack(trees, layout="packed")
    assert {shared for *_, shared in packed.plan.shapes} == {True, False}
    found = sum_by_branch(selected_logprobs(model, packed), packed)
    found.sin().sum().backward()
    # Sums over up to 150 tokens.
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-3)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-3)


def test_a_shared_prompt_is_computed_once():
    tree = random_trees([(20, (5, 9))])[0]
    assert pack([tree], layout="packed").input_ids_BT.shape == (1, 34)
    assert pack([tree], layout="rows").input_ids_BT.shape == (2, 29)
    assert (tree.tokens("packed"), tree.tokens("rows")) == (34, 54)
    assert (batch_tokens([tree], "packed"), batch_tokens([tree], "rows")) == (34, 58)


class Item:
    def __init__(self, length, branches):
        self.tree = Tree(prefix=(1,) * length, branches=tuple((1,) * size for size in branches))


@settings(max_examples=50)
@given(
    shapes=st.lists(
        st.tuples(st.integers(1, 50), st.lists(st.integers(0, 50), max_size=3)), min_size=1, max_size=40
    ),
    world=st.integers(1, 4),
    tokens=st.integers(1, 120),
    layout=st.sampled_from(["packed", "rows"]),
)
def test_every_item_is_computed_exactly_once_within_the_tokens_of_a_pass(shapes, world, tokens, layout):
    items = [Item(*shape) for shape in shapes]
    shares = share_out(items, world, layout)
    seen = []
    for share in shares:
        for group in micro_batches(share, tokens, layout):
            packed = pack([item.tree for item in group], layout=layout)
            assert packed.input_ids_BT.numel() == batch_tokens([item.tree for item in group], layout)
            assert packed.input_ids_BT.numel() <= tokens or len(group) == 1
            seen += group
    assert sorted(map(id, seen)) == sorted(map(id, items))


@given(count=st.integers(1, 30), batch=st.integers(1, 12), seed=st.integers(0, 5))
def test_an_epoch_visits_every_item_once_in_its_own_order(count, batch, seed):
    items = list(range(count))
    steps = -(-count // batch)
    epochs = [
        [i for s in range(steps) for i in batch_of_step(items, e * steps + s, batch_size=batch, seed=seed)]
        for e in range(2)
    ]
    assert sorted(epochs[0]) == sorted(epochs[1]) == items
    assert count < 8 or epochs[0] != epochs[1]
