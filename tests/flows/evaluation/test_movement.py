"""Where the weights moved: norms on hand-worked numbers, shards, precision, what cannot be measured, the views."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from common.sections import texts
from common.statistics import rank_correlation
from flows.errors import FlowError
from flows.evaluation.movement import kind_of, movement
from flows.report.data import MODELS
from flows.report.drawing import svg
from flows.report.weights import WeightStep, weight_plot, weight_section, weight_sentences


def write_model(folder: Path, tensors: dict, *, shards: int = 1) -> str:
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    names = list(tensors)
    if shards == 1:
        save_file(tensors, folder / "model.safetensors")
        return str(folder)
    weight_map = {name: f"model-{index % shards + 1:05d}.safetensors" for index, name in enumerate(names)}
    for file in set(weight_map.values()):
        save_file({n: t for n, t in tensors.items() if weight_map[n] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return str(folder)


def tensors() -> dict:
    import torch

    return {
        "model.embed_tokens.weight": torch.full((4, 2), 2.0),
        "model.layers.0.self_attn.q_proj.weight": torch.tensor([[3.0, 4.0]]),
        "model.layers.0.mlp.up_proj.weight": torch.tensor([[0.0, 12.0]]),
        "model.layers.1.self_attn.q_proj.weight": torch.tensor([[8.0, 6.0]]),
        "model.layers.1.input_layernorm.weight": torch.ones(4),
        "model.norm.weight": torch.tensor(1.0),
    }


def test_relative_changes_are_those_of_the_norms_of_layers_and_kinds(tmp_path):
    import torch

    before, after = tensors(), tensors()
    after["model.layers.0.self_attn.q_proj.weight"] = torch.tensor([[3.0, 4.5]])
    after["model.layers.0.mlp.up_proj.weight"] = torch.tensor([[1.2, 12.0]])
    after["model.layers.1.self_attn.q_proj.weight"] = torch.tensor([[8.0, 11.0]])
    a, b = write_model(tmp_path / "a", before), write_model(tmp_path / "b", after, shards=3)
    found = movement(a, b)
    first, second = (layer.to_json() for layer in found.layers)
    # Layer 0: sqrt(0.5^2 + 1.2^2) = 1.3 over sqrt(25 + 144) = 13; layer 1: 5 over sqrt(100 + 4).
    assert first == {"layer": 0, "all": pytest.approx(0.1), "attention": pytest.approx(0.1), "mlp": 0.1}
    assert second["all"] == pytest.approx(5 / math.sqrt(104), rel=1e-5) and second["norms"] == 0.0
    assert second["attention"] == 0.5
    assert found.kinds["embeddings"] == 0.0 and found.kinds["norms"] == 0.0
    assert found.kinds["attention"] == pytest.approx(math.sqrt(25.25 / 125), rel=1e-5)
    moved, norm = 0.25 + 1.44 + 25, 32 + 25 + 144 + 100 + 4 + 1
    assert found.total == pytest.approx(math.sqrt(moved / norm), rel=1e-5)
    assert (found.tensors, found.weights) == (6, 8 + 2 + 2 + 2 + 4 + 1)
    assert found.left_out.to_json() == {"n": 0, "first": []}


def test_a_large_tensor_is_read_in_blocks_and_a_rounded_one_has_not_moved(tmp_path, monkeypatch):
    import torch

    monkeypatch.setattr("flows.evaluation.movement._BLOCK", 7)
    torch.manual_seed(0)
    weight = torch.randn(10, 3)
    moved = weight + 0.1 * torch.randn(10, 3)
    name = "transformer.h.0.attn.c_attn.weight"
    a = write_model(tmp_path / "a", {name: weight})
    b = write_model(tmp_path / "b", {name: moved})
    expected = float((moved - weight).norm() / weight.norm())
    assert movement(a, b).total == pytest.approx(expected, rel=1e-5)
    half = write_model(tmp_path / "half", {name: weight.bfloat16()})
    assert movement(a, half).total == 0.0


def test_what_has_no_counterpart_is_named_and_not_counted(tmp_path):
    import torch

    before, after = tensors(), tensors()
    before["model.layers.0.mlp.scale"] = torch.ones(3, dtype=torch.int8)
    after["model.layers.0.mlp.scale"] = torch.zeros(3, dtype=torch.int8)
    after["model.embed_tokens.weight"] = torch.ones(5, 2)
    after["model.layers.1.input_layernorm.weight"] = torch.full((4,), math.nan)
    after["lm_head.weight"] = torch.ones(2)
    found = movement(write_model(tmp_path / "a", before), write_model(tmp_path / "b", after))
    assert found.left_out.n == 4 and found.total == 0.0
    assert list(found.left_out.first) == [
        "lm_head.weight: only in the model after",
        "model.embed_tokens.weight: has the shape [4, 2] before, [5, 2] after",
        "model.layers.0.mlp.scale: holds no floating-point numbers",
        "model.layers.1.input_layernorm.weight: is not finite",
    ]


def test_a_model_that_cannot_be_measured_says_why(tmp_path):
    whole = write_model(tmp_path / "whole", tensors())
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    with pytest.raises(FlowError, match="is a LoRA adapter"):
        movement(whole, str(adapter))
    with pytest.raises(FlowError, match="not a whole safetensors file"):
        movement(whole, str(tmp_path / "none"))
    with pytest.raises(FlowError, match="not in the hub's local cache"):
        movement(whole, "nobody/no-such-model")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "model.safetensors.index.json").write_text('{"weight_map": ["x"]}')
    with pytest.raises(FlowError, match="no readable safetensors weights"):
        movement(whole, str(tmp_path / "odd"))
    # An index cannot lead out of the model's folder.
    index = {"weight_map": {"model.norm.weight": "../whole/model.safetensors"}}
    (tmp_path / "odd" / "model.safetensors.index.json").write_text(json.dumps(index))
    assert movement(whole, str(tmp_path / "odd")).tensors == 0


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("model.layers.3.post_attention_layernorm.weight", "norms"),
        ("model.layers.3.self_attn.q_norm.weight", "norms"),
        ("transformer.h.3.ln_1.bias", "norms"),
        ("transformer.wte.weight", "embeddings"),
        ("lm_head.weight", "embeddings"),
        ("transformer.h.3.attn.c_proj.weight", "attention"),
        ("model.layers.3.block_sparse_moe.experts.1.w1.weight", "mlp"),
        ("model.decoder.layers.0.fc1.weight", "mlp"),
        ("score.weight", "other"),
    ],
)
def test_weights_belong_to_a_kind_by_their_name(name, kind):
    assert kind_of(name) == kind


def step(changes: list[float | None], **more) -> WeightStep:
    layers = [{"layer": i, "all": c, "attention": c} for i, c in enumerate(changes)]
    moved = [one for one in layers if one["all"] is not None]
    data = {
        "from": "sl_cai",
        "to": "rl_cai",
        "total": 0.02,
        "kinds": {"attention": 0.03, "norms": 0.001},
        "layers": layers,
        "depth": rank_correlation([one["layer"] for one in moved], [one["all"] for one in moved]).to_json(),
        "tensors": 3,
        "weights": 9,
        "left_out": {"n": 0, "first": []},
        **more,
    }
    assert WeightStep.from_json(data).to_json() == data
    return WeightStep.from_json(data)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ([i / 100 for i in range(1, 9)], "RL-CAI: yes (rank correlation +1.00, p <0.001; most in layer 8 of 8, 8%)"),
        ([0.08 - i / 100 for i in range(6)], "RL-CAI: no, the earlier ones do (rank correlation -1.00, p 0.0028; "),
        ([0.01, 0.02, 0.03, 0.04], "RL-CAI: too few layers to tell (rank correlation +1.00, p 0.083; "),
        ([0.02, 0.01, 0.03, 0.01, 0.02], "RL-CAI: no clear order"),
        ([0.0] * 6, "RL-CAI: no order among 6 layers"),
    ],
)  # fmt: skip
def test_the_finding_answers_whether_later_layers_move_most(changes, said):
    (sentence,) = weight_sentences([step(changes)], MODELS)
    assert sentence.startswith("Do the later layers move most? ") and said in sentence


def test_views_show_every_step_and_what_was_not_measured():
    steps = [
        WeightStep(start="base", end="sl_cai", problem="x: is a LoRA adapter"),
        step([0.001, 0.002, 0.05, 0.06, 0.09], left_out={"n": 2, "first": ["lm_head.weight: only in …"]}),
        step([0.01] * 5, **{"from": "base"}),
    ]
    rows = texts(weight_section(steps, MODELS).rows)
    assert rows[0] == [
        "from, to", "all %", "attention %", "norms %", "first layer %", "last layer %", "depth",
    ]  # fmt: skip
    assert rows[1] == ["SL-CAI → RL-CAI", "2", "3", "0.1", "0.1", "9", "+1.00, p 0.017"]
    assert rows[2][0] == "base → RL-CAI" and rows[2][-1] == "-"
    said = weight_sentences(steps, MODELS)
    assert len(said) == 3 and said[0].count("RL-CAI") == 1
    assert "from base to SL-CAI is not measured: x: is a LoRA adapter" in said[1]
    assert "2 tensors from SL-CAI to RL-CAI are not measured (lm_head.weight" in said[2]
    plot = weight_plot(steps, MODELS)
    assert "by layer: RL-CAI 0.1% in the first and 9% in the last." in plot.text and "<svg" in svg(plot.draw)
    assert weight_plot(steps[:1], MODELS) is None and weight_section([], MODELS).empty
    assert weight_sentences([], MODELS) == []
