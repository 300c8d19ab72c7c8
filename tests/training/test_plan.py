"""The plan: parameters exactly, activations about, and a refusal before the model loads."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

from common.chat import encode_prompt
from common.rows import Prompt
from engines.in_process.slots import SlotCache
from training import grpo
from training.config.base import TrainConfig
from training.config.rl import GRPOConfig, PPOConfig
from training.data.packing import Tree, attention_areas, pack
from training.errors import TrainingError
from training.models import cpu_attention
from training.models.attention import backbone, choose_layout, model_inputs
from training.models.load import load_causal_lm, load_sequence_classifier, save_model
from training.rl.memory import plan_rl
from training.run.memory import activation_bytes, model_size, plan_supervised, size_of
from training.run.runtime import Runtime
from training.sft import SftConfig, train


def packed_sequences(tokens, length):
    ids = tuple(n % 390 for n in range(length))
    return pack([Tree(prefix=ids)] * (tokens // length), layout="packed")


def kept_bytes(model, tokens, length=50, bf16=False):
    """What autograd keeps for a backward pass through the layers, weights (and their copies in bf16) aside."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    packed = packed_sequences(tokens, length)
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=bf16),
    ):
        backbone(model)(**model_inputs(model, packed))
    found = sum(t.untyped_storage().nbytes() for pointer, t in kept.items() if pointer not in own)
    return found - (2 * sum(p.numel() for p in model.parameters() if p.ndim == 2) if bf16 else 0)


@pytest.mark.parametrize(
    "changes", [{}, {"num_hidden_layers": 4, "intermediate_size": 352, "hidden_size": 128}]
)
def test_sizes_are_the_model_s_and_activations_are_about_right(tmp_path, make_model, changes):
    model = make_model(400, **changes)
    model.save_pretrained(tmp_path)
    size = model_size(TrainConfig(model=str(tmp_path), output_dir=tmp_path))
    assert size.parameters == sum(p.numel() for p in model.parameters())
    choose_layout(model)
    estimate = activation_bytes(size, 1000, bf16=False, checkpointing=False)
    assert estimate == pytest.approx(kept_bytes(model, 1000), rel=0.25)


WIDE = {"hidden_size": 256, "intermediate_size": 704, "max_position_embeddings": 1024}


def of_sequences(length):
    """Probabilities that a head keeps per token."""
    return cpu_attention.kept(length, length, causal=True) / length


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("heads", [4, 8])
@pytest.mark.parametrize("length", [250, 500, 1000])
def test_activations_are_about_right_for_long_sequences(tmp_path, make_model, length, heads, bf16):
    model = make_model(400, **WIDE, num_attention_heads=heads)
    model.save_pretrained(tmp_path)
    size = size_of(str(tmp_path))
    choose_layout(model)
    estimate = activation_bytes(
        size, 1000, bf16=bf16, checkpointing=False, probabilities=of_sequences(length)
    )
    assert estimate == pytest.approx(kept_bytes(model, 1000, length, bf16), rel=0.25)


@pytest.mark.parametrize("length", [50, 1000])
def test_with_checkpointing_the_most_is_about_right(tmp_path, make_model, length):
    from torch.distributed._tools.mem_tracker import MemTracker

    model = make_model(400, hidden_size=128, intermediate_size=352, max_position_embeddings=1024)
    model.save_pretrained(tmp_path)
    size = size_of(str(tmp_path))
    choose_layout(model)
    model.train().gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    packed = packed_sequences(1000, length)
    tracker = MemTracker()
    tracker.track_external(model)
    with tracker:
        backbone(model)(**model_inputs(model, packed)).last_hidden_state.sum().backward()
    (most,) = tracker.get_tracker_snapshot("peak").values()
    found = most["Total"] - 2 * sum(p.nbytes for p in model.parameters())
    estimate = activation_bytes(
        size, 1000, bf16=False, checkpointing=True, probabilities=of_sequences(length)
    )
    assert estimate == pytest.approx(found, rel=0.25)


class Item:
    def __init__(self, prefix, *branches):
        self.tree = Tree(prefix=(1,) * prefix, branches=tuple((1,) * size for size in branches))


def planned(model, tmp_path, items, *, world=1, sharded=False, **settings):
    config = SftConfig(
        model=str(model), output_dir=tmp_path / "out", data=["-"], precision="float32", batch_size=4
    )
    runtime = SimpleNamespace(
        world=world, sharded=sharded, device=torch.device(settings.pop("device", "cpu"))
    )
    return plan_supervised(config, runtime, items, head_tokens=lambda item: 0, **settings)


def test_probabilities_that_a_cpu_keeps_are_counted(tmp_path, make_model, monkeypatch):
    make_model(400, **WIDE).save_pretrained(tmp_path / "model")
    size = size_of(str(tmp_path / "model"))
    found = planned(tmp_path / "model", tmp_path, [Item(500)] * 4)
    kept = activation_bytes(size, 2000, bf16=False, checkpointing=False, probabilities=of_sequences(500))
    assert found.activations == pytest.approx(kept)
    monkeypatch.setattr("training.run.memory.free_memory", lambda runtime: 1e12)
    elsewhere = planned(tmp_path / "model", tmp_path, [Item(500)] * 4, device="cuda")
    assert elsewhere.activations == activation_bytes(size, 2000, bf16=False, checkpointing=False)
    # As many as attention keeps: of a pair's long prompt once, of its answers under a mask.
    (tree,) = [Item(600, 60, 40).tree]
    plan = pack([tree], layout="packed").plan
    blocks = sum(rows * cpu_attention.kept(q, k, causal=not shared) for rows, q, k, shared in plan.shapes)
    alone = sum(cpu_attention.kept(q, k, causal=causal) for q, k, causal in attention_areas(tree))
    assert alone == pytest.approx(blocks, rel=0.05)


def test_a_model_that_needs_rows_is_planned_with_rows(tmp_path, make_model):
    """Both rows of a pair hold its prompt and are as wide as the longer."""
    import transformers

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    models = {
        "packed": make_model(400),
        "encoder": transformers.BertModel(transformers.BertConfig(vocab_size=400, **sizes)),
        "softcapped": transformers.Gemma2Model(
            transformers.Gemma2Config(vocab_size=400, head_dim=8, num_key_value_heads=2, **sizes)
        ),
        "biased": transformers.BloomModel(transformers.BloomConfig(vocab_size=400, n_layer=2, n_head=4)),
    }
    for name, model in models.items():
        model.save_pretrained(tmp_path / name)
        expected = 4 * (80 if name == "packed" else 2 * 70)
        assert planned(tmp_path / name, tmp_path, [Item(50, 20, 10)] * 4).tokens == expected, name


def test_a_whole_model_that_is_sharded_later_is_counted(tiny_dir, tmp_path, monkeypatch):
    monkeypatch.setattr("training.run.memory.free_memory", lambda runtime: 1e12)
    whole = 4 * size_of(str(tiny_dir)).parameters
    few = {"items": [Item(5)], "world": 64, "sharded": True}
    assert planned(tiny_dir, tmp_path, **few, device="cuda").weights == whole / 64
    assert planned(tiny_dir, tmp_path, **few, device="cuda", reference=True).needed == pytest.approx(whole)
    assert planned(tiny_dir, tmp_path, **few).needed == pytest.approx(whole)


def test_a_run_that_cannot_fit_is_refused_before_the_model_loads(tiny_dir, tmp_path, monkeypatch, capsys):
    data = tmp_path / "data.jsonl"
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    data.write_text(json.dumps({"messages": messages}) + "\n")
    config = SftConfig(model=str(tiny_dir), output_dir=tmp_path / "out", data=[data], precision="float32")
    monkeypatch.setattr("training.run.memory.free_memory", lambda runtime: 1000.0)
    monkeypatch.setattr("training.sft.load_causal_lm", lambda *a, **k: pytest.fail("the model was loaded"))
    with pytest.raises(TrainingError, match=r"does not fit: 0\.0M parameters, 1 steps") as caught:
        train(config)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
    monkeypatch.undo()
    train(config)
    assert capsys.readouterr().err.startswith("plan: 0.0M parameters, 1 steps, ")


def test_reinforcement_learning_counts_every_model_and_the_cache(
    tiny_dir, tmp_path, make_model, tiny_tokenizer
):
    reward = tmp_path / "reward"
    model = load_sequence_classifier(str(tiny_dir), new_head=True, pad_token_id=0)
    save_model(model, tiny_tokenizer, reward)
    prompts = [
        Prompt(id=text, prompt=[{"role": "user", "content": text}]) for text in ("egg", "a cat and a dog")
    ]
    settings = {
        "model": str(tiny_dir),
        "prompts": ["-"],
        "output_dir": tmp_path / "out",
        "reward_model": str(reward),
        "precision": "float32",
        "batch_size": 8,
        "max_new_tokens": 16,
        "steps": 5,
    }

    def plan(config_class=PPOConfig, **changes):
        config = config_class(**{**settings, **changes})
        return plan_rl(config, Runtime(config), tiny_tokenizer, prompts)

    found = plan()
    size = found.parameters
    assert size == sum(p.numel() for p in load_causal_lm(str(tiny_dir)).parameters())
    assert (found.steps, found.tokens) == (5, 5 * 8 * 16)
    assert (found.weights, found.gradients, found.optimizer) == (4 * size, 4 * size, 8 * size)
    assert found.frozen == 2 * 4 * size, "the reference and the reward model"
    assert found.value_model == (4 + 4 + 8) * size
    assert found.needed == pytest.approx(
        sum((16 * size, found.activations, found.frozen, found.value_model, found.cache))
    )
    # Two reward models as an ensemble, no value model, no reference of its own, no cache in this process.
    grpo = plan(GRPOConfig, reward_model=None, rewards=[{"kind": "ensemble", "paths": [str(reward)] * 2}])
    assert grpo.frozen == 3 * 4 * size and grpo.value_model == 0
    assert plan(lora={"r": 4}).frozen == 4 * size
    assert plan(rollouts={"kind": "vllm", "url": "http://127.0.0.1:8000"}).cache == 0
    # The cache is as large as the one that sampling makes.
    longest = max(len(encode_prompt(tiny_tokenizer, prompt.prompt)) for prompt in prompts) + 16
    config = load_causal_lm(str(tiny_dir)).config
    cache = SlotCache(layers=config.num_hidden_layers, slots=8, columns=longest)
    states = torch.zeros(1, config.num_key_value_heads, 1, config.head_dim)
    for layer in cache.layers:
        layer.lazy_initialization(states, states)
    assert found.cache == sum(4 * (layer.keys.numel() + layer.values.numel()) for layer in cache.layers)


def test_a_policy_that_cannot_fit_is_refused_before_its_model_loads(tiny_dir, tmp_path, monkeypatch):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(json.dumps({"id": "a", "prompt": "Hi"}) + "\n")
    config = GRPOConfig(
        model=str(tiny_dir), prompts=[prompts], output_dir=tmp_path / "out", rewards=[{"kind": "length"}]
    )
    monkeypatch.setattr("training.rl.memory.free_memory", lambda runtime: 1000.0)
    monkeypatch.setattr(
        "training.rl.models.load_causal_lm", lambda *a, **k: pytest.fail("the model was loaded")
    )
    with pytest.raises(
        TrainingError, match=r"does not fit: .* frozen 0\.00, cache 0\.00\) of .*; lower micro_"
    ) as caught:
        grpo.train(config)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
