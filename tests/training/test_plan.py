"""The plan: parameters exactly, activations about, and a refusal before the model loads."""

from __future__ import annotations

import json

import pytest
import torch

from training.attention import backbone, choose_layout, model_inputs
from training.config import TrainConfig
from training.errors import TrainingError
from training.packing import Tree, pack
from training.plan import activation_bytes, model_size
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
