"""Loading models: one line for each way it can fail, before weights are read where that is possible."""

from __future__ import annotations

import json

import pytest

from training.errors import TrainingError
from training.models.files import check_model
from training.models.load import (
    check_fit,
    load_causal_lm,
    load_sequence_classifier,
    load_tokenizer,
    save_model,
)


@pytest.fixture
def copy(tmp_path, tiny_model, make_tokenizer):
    directory = tmp_path / "copy"
    save_model(tiny_model, make_tokenizer(), directory)
    return directory


def one_line(function, *arguments, **settings):
    with pytest.raises(TrainingError) as caught:
        function(*arguments, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_saved_model_loads_and_leaves_nothing_half_written(copy, tiny_model):
    found = load_causal_lm(str(copy)).state_dict()
    assert all((found[name] == tensor).all() for name, tensor in tiny_model.state_dict().items())
    assert not [path for path in copy.iterdir() if path.name.startswith(".")]
    assert not any(p.requires_grad for p in load_causal_lm(str(copy), trainable=False).parameters())


def test_directories_that_hold_no_model(tmp_path, copy):
    assert one_line(check_model, str(tmp_path / "none")).endswith("no such directory")
    (tmp_path / "empty").mkdir()
    assert one_line(check_model, str(tmp_path / "empty")).endswith("the directory is empty")
    assert "is a file" in one_line(check_model, str(copy / "config.json"))
    (copy / "model.safetensors").unlink()
    assert one_line(check_model, str(copy)).endswith("has no safetensors weights")
    (copy / "config.json").write_text("{")
    assert "is not JSON" in one_line(check_model, str(copy))
    (copy / "config.json").unlink()
    assert one_line(check_model, str(copy)).endswith("has no config.json")
    (copy / "adapter_config.json").write_text("{}")
    assert "is a LoRA adapter" in one_line(check_model, str(copy))
    assert "cannot be loaded" in one_line(load_causal_lm, "nobody/nothing")


def test_damaged_weights(copy):
    (copy / "model.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{broken")
    assert "is not a whole safetensors file" in one_line(load_causal_lm, str(copy))


def test_a_sharded_model_wants_all_its_shards(copy, tiny_model):
    (copy / "model.safetensors").unlink()
    tiny_model.save_pretrained(copy, max_shard_size="20KB")
    shards = sorted(copy.glob("model-*.safetensors"))
    assert len(shards) > 1
    check_model(str(copy), head="causal")
    shards[0].unlink()
    assert f"has no {shards[0].name}" in one_line(check_model, str(copy))
    (copy / "model.safetensors.index.json").write_text('{"weight_map": ')
    assert "is no index of a sharded model" in one_line(check_model, str(copy))


ENCODER = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 66,
}


def test_only_the_head_and_the_pooler_of_an_encoder_may_be_new(tmp_path, tiny_tokenizer):
    from safetensors.torch import load_file, save_file
    from transformers import BertConfig, BertForMaskedLM

    BertForMaskedLM(BertConfig(vocab_size=400, **ENCODER)).save_pretrained(tmp_path)
    load_sequence_classifier(str(tmp_path), new_head=True)
    weights = load_file(tmp_path / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if "encoder.layer.1." not in name}
    assert len(kept) < len(weights)
    save_file(kept, tmp_path / "model.safetensors", {"format": "pt"})
    message = one_line(load_sequence_classifier, str(tmp_path), new_head=True)
    assert "16 weights are missing, bert.encoder.layer.1." in message


def test_positions_that_a_model_cannot_use(tmp_path, make_tokenizer):
    import torch
    from transformers import (
        BertConfig,
        BertForSequenceClassification,
        RobertaConfig,
        RobertaForSequenceClassification,
    )

    tokenizer = make_tokenizer()
    # RoBERTa's positions begin after the padding token's number.
    for model, longest in (
        (BertForSequenceClassification(BertConfig(vocab_size=400, **ENCODER)), 66),
        (RobertaForSequenceClassification(RobertaConfig(vocab_size=400, pad_token_id=1, **ENCODER)), 64),
    ):
        check_fit(model, tokenizer, longest)
        model(input_ids=torch.full((1, longest), 5))
        assert f"takes {longest}" in one_line(check_fit, model, tokenizer, longest + 1)


def test_the_wrong_head(tmp_path, copy, make_tokenizer):
    assert "has no reward head" in one_line(load_sequence_classifier, str(copy))
    reward = tmp_path / "reward"
    save_model(load_sequence_classifier(str(copy), new_head=True), make_tokenizer(), reward)
    assert "a causal language model is needed" in one_line(load_causal_lm, str(reward))
    config = json.loads((reward / "config.json").read_text())
    config["id2label"] = {"0": "a", "1": "b"}
    (reward / "config.json").write_text(json.dumps(config))
    assert "has 2 labels; a reward model has one" in one_line(load_sequence_classifier, str(reward))


def test_a_tokenizer_without_padding_gets_some_and_none_at_all_is_one_line(tmp_path, copy, make_tokenizer):
    tokenizer = make_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(copy)
    assert load_tokenizer(str(copy)).pad_token == "<|end|>"
    tokenizer.eos_token = None
    tokenizer.save_pretrained(copy)
    assert "has no pad, unk or eos token" in one_line(load_tokenizer, str(copy))
    for path in copy.glob("tokenizer*"):
        path.unlink()
    assert one_line(load_tokenizer, str(copy)).endswith("holds no tokenizer files")


def test_new_heads_follow_the_seed(copy):
    first, again, other = (
        load_sequence_classifier(str(copy), new_head=True, seed=s).score.weight for s in (0, 0, 1)
    )
    assert (first == again).all()
    assert (first != other).any()
