"""The plan: parameters exactly, activations about, and a refusal before the model loads."""

from __future__ import annotations

import json

import pytest
import torch

from training import grpo
from training.attention import backbone, choose_layout, model_inputs
from training.chat import encode_prompt
from training.config import TrainConfig
from training.data import Prompt
from training.errors import TrainingError
from training.models import load_causal_lm, load_sequence_classifier, save_model
from training.packing import Tree, pack
from training.plan import activation_bytes, model_size
from training.rl_config import GRPOConfig, PPOConfig
from training.rl_plan import plan_rl
from training.rollouts.slots import SlotCache
from training.runtime import Runtime
from training.sft import SftConfig, train


def kept_bytes(model, tokens):
    """What autograd keeps for a backward pass through the layers, weights aside."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    packed = pack([Tree(prefix=tuple(range(50)))] * (tokens // 50), layout="packed")
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        backbone(model)(**model_inputs(packed))
    return sum(t.untyped_storage().nbytes() for pointer, t in kept.items() if pointer not in own)


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


def test_a_run_that_cannot_fit_is_refused_before_the_model_loads(tiny_dir, tmp_path, monkeypatch, capsys):
    data = tmp_path / "data.jsonl"
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    data.write_text(json.dumps({"messages": messages}) + "\n")
    config = SftConfig(model=str(tiny_dir), output_dir=tmp_path / "out", data=[data], precision="float32")
    monkeypatch.setattr("training.plan.free_memory", lambda runtime: 1000.0)
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
    monkeypatch.setattr("training.rl_plan.free_memory", lambda runtime: 1000.0)
    monkeypatch.setattr(
        "training.rl_models.load_causal_lm", lambda *a, **k: pytest.fail("the model was loaded")
    )
    with pytest.raises(
        TrainingError, match=r"does not fit: .* frozen 0\.00, cache 0\.00\) of .*; lower micro_"
    ) as caught:
        grpo.train(config)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
