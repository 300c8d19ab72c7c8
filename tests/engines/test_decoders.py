"""The fast decoder of sampling: taken where it gives the model's own logits, and only there."""

import copy

import pytest
import torch
from transformers import (
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from engines import Sampling
from engines.in_process import decoders, generate_ids
from engines.in_process.decoders import LlamaDecoder, ModelDecoder, choose_decoder, spans
from engines.in_process.slots import SlotCache
from training.config.base import LoraConfig
from training.models.adapters import add_lora

COLUMNS = 24
SMALL = {
    "vocab_size": 60,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
}


def logits_of(decoder, model, lengths):
    """Logits of three steps after right-padded prompts of these lengths, in a cache with a row to spare."""
    torch.manual_seed(4)
    rows, longest = len(lengths), max(lengths)
    vocabulary = model.config.get_text_config().vocab_size
    ids = torch.randint(2, vocabulary, (rows, longest))
    cache = SlotCache(layers=model.config.num_hidden_layers, slots=rows + 1, columns=COLUMNS)
    places, columns, found = torch.arange(rows), torch.tensor(lengths), []
    with torch.no_grad():
        decoder.prefill(ids, places, places, cache)
        for _ in range(3):
            found.append(decoder.step(torch.randint(2, vocabulary, (rows,)), columns.clone(), cache))
            columns += 1
    return torch.stack(found)


def assert_fast_and_equal(model, lengths=(9, 1, 5, 9)):
    model.eval()
    with torch.no_grad():
        decoder = choose_decoder(model, COLUMNS)
    assert isinstance(decoder, LlamaDecoder)
    expected = logits_of(ModelDecoder(model), model, lengths)
    found = logits_of(decoder, model, lengths)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_key_value_heads": 4},
        {"head_dim": 16},
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1000.0}},
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "factor": 4.0,
                "rope_theta": 10000.0,
                "original_max_position_embeddings": 128,
            }
        },
    ],
    ids=["grouped", "every head", "wide heads", "linear", "yarn"],
)
def test_llamas_are_fast(make_model, changes):
    assert_fast_and_equal(make_model(60, **changes))


def test_rows_of_unlike_length_attend_apart(make_model, monkeypatch):
    assert spans([5, 3, 4]) == [(0, 3, 6)]
    assert spans([]) == []
    lengths = [400] * 8 + [390] * 8 + [30] * 9 + [31] * 3
    assert spans(lengths) == [(0, 16, 401), (16, 28, 32)]
    monkeypatch.setattr(decoders, "_SPAN", 2)
    monkeypatch.setattr(decoders, "_SPAN_COST", 3)
    assert spans([9, 1, 5, 9]) == [(0, 4, 10)]
    assert spans([9, 9, 5, 5, 1]) == [(0, 2, 10), (2, 4, 6), (4, 5, 2)]
    assert_fast_and_equal(make_model(60), [9, 9, 5, 4, 1])


def test_biases_and_untied_heads_are_the_models_own():
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(Qwen2Config(**SMALL, tie_word_embeddings=False))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_()
    assert_fast_and_equal(model)


def test_an_adapter_counts_and_can_be_off(tiny_model):
    pytest.importorskip("peft")
    model = add_lora(tiny_model, LoraConfig(r=4), task="CAUSAL_LM", seed=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    assert_fast_and_equal(model)
    adapted = logits_of(LlamaDecoder(model, COLUMNS), model, [4])
    with model.disable_adapter():
        assert_fast_and_equal(model)
        assert not torch.allclose(adapted, logits_of(LlamaDecoder(model, COLUMNS), model, [4]), atol=1e-2)


@pytest.mark.parametrize(
    "kind", ["learned positions", "normed queries", "scaled embeddings", "growing rotary", "bf16"]
)
def test_other_models_decode_themselves(make_model, kind):
    torch.manual_seed(0)
    if kind == "learned positions":
        model = GPT2LMHeadModel(GPT2Config(vocab_size=60, n_embd=32, n_layer=2, n_head=4, n_positions=64))
    elif kind == "normed queries":
        model = Qwen3ForCausalLM(Qwen3Config(**SMALL))
    elif kind == "scaled embeddings":
        model = GemmaForCausalLM(GemmaConfig(**SMALL))
    elif kind == "growing rotary":
        rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
        model = make_model(60, rope_parameters=rope)
    else:
        model = make_model(60).bfloat16()
    with torch.no_grad():
        assert isinstance(choose_decoder(model.eval(), COLUMNS), ModelDecoder)


def test_both_decoders_sample_the_same(tiny_model, tiny_tokenizer, monkeypatch):
    prompts = [[5, 6, 7, 8 + i % 5][: 1 + i % 4] for i in range(12)]
    sampling = Sampling(max_new_tokens=10)

    def sample():
        return generate_ids(tiny_model, tiny_tokenizer, prompts, sampling=sampling, batch_size=5)

    fast = sample()
    monkeypatch.setattr("engines.in_process.loop.choose_decoder", lambda model, columns: ModelDecoder(model))
    slow = sample()
    assert [one.token_ids for one in fast] == [one.token_ids for one in slow]
    for one, other in zip(fast, slow, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)


def test_the_fast_decoder_takes_the_weights_as_they_are_now(tiny_model, tiny_tokenizer):
    changed = copy.deepcopy(tiny_model)
    with torch.no_grad():
        decoder = choose_decoder(tiny_model.eval(), COLUMNS)
        for parameter in [*tiny_model.parameters(), *changed.parameters()]:
            parameter.mul_(0.8)
        expected = logits_of(choose_decoder(changed.eval(), COLUMNS), changed, [6, 3])
    torch.testing.assert_close(logits_of(decoder, tiny_model, [6, 3]), expected)
