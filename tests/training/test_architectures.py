"""Tiny random models of many architectures: what is trained and scored is what transformers' own forward pass gives."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest
import torch

from common.chat import encode_prompt
from engines import Sampling
from engines.in_process import generate_ids
from training.config.supervised import DpoConfig, RewardModelConfig, SftConfig
from training.dpo.train import train as train_dpo
from training.models.load import load_causal_lm
from training.models.policy import switch_dropout_off
from training.reward_model import score
from training.reward_model import train as train_reward_model
from training.sft import train as train_sft

# Sizes are those that each config spells in its own way.
DECODERS = {
    "llama": {"num_key_value_heads": 2},
    "mistral": {"num_key_value_heads": 2, "sliding_window": 16},
    "qwen2": {"num_key_value_heads": 2},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 8},
    "gemma": {"head_dim": 16, "num_key_value_heads": 2},
    "gemma2": {"head_dim": 16, "num_key_value_heads": 2, "sliding_window": 16, "attn_logit_softcapping": 0.5},
    "gemma3_text": {"head_dim": 16, "num_key_value_heads": 2, "sliding_window": 16},
    "vaultgemma": {"head_dim": 16, "num_key_value_heads": 2, "attn_logit_softcapping": 0.5},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "attn_pdrop": 0.1, "resid_pdrop": 0.1},
    "gpt_neo": {
        "num_layers": 2,
        "num_heads": 2,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 16,
    },
    "gpt_neox": {"hidden_dropout": 0.1},
    "gptj": {"n_embd": 32, "n_layer": 2, "n_head": 2, "rotary_dim": 8, "n_positions": 512},
    "codegen": {"n_embd": 32, "n_layer": 2, "num_attention_heads": 4, "rotary_dim": 4, "n_positions": 512},
    "gpt_bigcode": {"n_embd": 32, "n_layer": 2, "n_head": 4, "attn_pdrop": 0.1},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32, "dropout": 0.1},
    "bloom": {"n_head": 4, "n_layer": 2, "hidden_dropout": 0.1},
    "mpt": {"d_model": 32, "n_heads": 2, "n_layers": 2, "max_seq_len": 512},
    "falcon": {"ffn_hidden_size": 64, "hidden_dropout": 0.1},
    "phi": {"resid_pdrop": 0.1},
    "phi3": {"num_key_value_heads": 2},
    "stablelm": {"num_key_value_heads": 2},
    "olmo2": {"num_key_value_heads": 2},
    "cohere": {"num_key_value_heads": 2},
    "granite": {"num_key_value_heads": 2, "logits_scaling": 4.0},
    "gpt_oss": {
        "head_dim": 16,
        "num_key_value_heads": 2,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "sliding_window": 16,
    },
    "mixtral": {"num_key_value_heads": 2, "num_local_experts": 2, "router_jitter_noise": 0.1},
    "mamba": {"state_size": 8},
}
ENCODERS = {
    "bert": {},
    "electra": {"embedding_size": 32},
    "deberta-v2": {
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
        "position_buckets": 32,
    },
    "modernbert": {
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 1,
        "cls_token_id": 1,
        "sep_token_id": 1,
    },
}
WORDS = "bread water bake flour kind cat dog tea rice soup egg hot wait nine red house story".split()


def build(kind: str, changes: dict, folder: Path, tokenizer, *, head: str = "CausalLM") -> str:
    import transformers

    sizes = {
        # Some tokenizer classes add a token of their own when they are loaded.
        "vocab_size": len(tokenizer) + 8,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 512,
        "pad_token_id": 0,
        "bos_token_id": None,
        "eos_token_id": 1,
    }
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **{**sizes, **changes})
    model = getattr(transformers, f"AutoModelFor{head}").from_config(config)
    for parameter in model.parameters():
        # Large enough that attention matters: a wrong mask must show.
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    draw = random.Random(0)
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    with path.open("w") as file:
        for i in range(6):
            prompt = [{"role": "user", "content": " ".join(draw.choices(WORDS, k=draw.randint(2, 14)))}]
            answers = [" ".join(draw.choices(WORDS, k=draw.randint(2, 12))) for _ in range(2)]
            row = {
                "pair_id": str(i),
                "prompt": prompt,
                "chosen": answers[0],
                "rejected": answers[1],
                "p": 1.0,
            }
            row["messages"] = [*prompt, {"role": "assistant", "content": answers[0]}]
            file.write(json.dumps(row) + "\n")
    return path


def answer_nll(model, tokenizer, pairs: Path) -> float:
    """Mean negative log-likelihood of the answers' tokens, one whole conversation a forward pass."""
    total = tokens = 0.0
    for row in map(json.loads, pairs.read_text().splitlines()):
        messages = row["messages"]
        ids = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
        start = len(
            tokenizer.apply_chat_template(
                messages[:1], tokenize=True, add_generation_prompt=True, return_dict=False
            )
        )
        with torch.no_grad():
            logprobs = model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
        total -= sum(float(logprobs[t - 1, ids[t]]) for t in range(start, len(ids)))
        tokens += len(ids) - start
    return total / tokens


@pytest.mark.parametrize("kind", DECODERS)
def test_decoders_train_as_their_own_forward_pass_says(kind, tmp_path, tiny_tokenizer, pairs):
    import transformers

    folder = build(kind, DECODERS[kind], tmp_path / "model", tiny_tokenizer)
    own = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    expected = answer_nll(own, tiny_tokenizer, pairs)
    step = {
        "model": folder,
        "data": [pairs],
        "precision": "float32",
        "batch_size": 6,
        "max_steps": 1,
        "epochs": 1,
        "checkpoint_every": 0,
        "optimizer": {"learning_rate": 1e-9},
    }
    switch_dropout_off(load_causal_lm(folder))
    dpo = train_dpo(DpoConfig(**step, output_dir=tmp_path / "dpo", held_out=0))
    assert abs(dpo.metrics["loss"] - math.log(2)) < 1e-5
    if not any("drop" in name or "jitter" in name for name in DECODERS[kind]):
        sft = train_sft(SftConfig(**step, output_dir=tmp_path / "sft"))
        assert sft.metrics["loss"] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("kind", DECODERS)
def test_decoders_sample_greedily_as_generate_does(kind, tmp_path, tiny_tokenizer):
    """Several prompts of unlike lengths at once, against transformers with the attention its config asks for, alone."""
    import transformers

    folder = build(kind, DECODERS[kind], tmp_path / kind, tiny_tokenizer)
    texts = (
        "egg",
        "a cat and a dog",
        "What is the capital of France? Tell me at once, please, and how to boil rice.",
    )
    prompts = [encode_prompt(tiny_tokenizer, [{"role": "user", "content": text}]) for text in texts]
    found = generate_ids(
        load_causal_lm(folder, trainable=False).eval(),
        tiny_tokenizer,
        prompts,
        sampling=Sampling(max_new_tokens=24, temperature=0),
    )
    own = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    for prompt, done in zip(prompts, found, strict=True):
        with torch.no_grad():
            whole = own.generate(
                torch.tensor([prompt]), max_new_tokens=24, do_sample=False, eos_token_id=1, pad_token_id=0
            )
            logits = own(torch.tensor([[*prompt, *done.token_ids]])).logits[0, len(prompt) - 1 : -1]
        assert list(done.token_ids) == whole[0, len(prompt) :].tolist()
        chosen = logits.float().log_softmax(-1).gather(1, torch.tensor(done.token_ids)[:, None])[:, 0]
        assert torch.tensor(done.logprobs) == pytest.approx(chosen, abs=1e-4)


@pytest.mark.parametrize("kind", [*ENCODERS, "llama", "bloom", "gpt_neo", "gptj", "mpt", "gemma2", "opt"])
def test_reward_models_score_as_their_own_forward_pass_does(kind, tmp_path, tiny_tokenizer, pairs):
    import transformers

    head, changes = ("MaskedLM", ENCODERS[kind]) if kind in ENCODERS else ("CausalLM", DECODERS[kind])
    try:
        transformers.AutoModelForSequenceClassification._model_mapping[
            type(transformers.AutoConfig.for_model(kind))
        ]
    except KeyError:
        pytest.fail(f"transformers has no sequence classifier of {kind}")
    folder = build(kind, changes, tmp_path / "model", tiny_tokenizer, head=head)
    train_reward_model(
        RewardModelConfig(
            model=folder,
            data=[pairs],
            output_dir=tmp_path / "out",
            precision="float32",
            batch_size=6,
            max_steps=1,
            held_out=0,
            checkpoint_every=0,
            optimizer={"learning_rate": 1e-9},
        )
    )
    own = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "out", attn_implementation="eager"
    ).eval()
    rows = list(map(json.loads, pairs.read_text().splitlines()))
    found = score(tmp_path / "out", [row["prompt"] for row in rows], [row["chosen"] for row in rows])
    for row, value in zip(rows, found, strict=True):
        ids = tiny_tokenizer.apply_chat_template(row["messages"], tokenize=True, return_dict=False)
        with torch.no_grad():
            raw = float(own(torch.tensor([ids])).logits[0, 0])
        assert value == pytest.approx((raw - own.config.reward_mean) / own.config.reward_std, abs=1e-3)
