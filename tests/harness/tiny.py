"""A random tiny Llama with a byte-level BPE tokenizer, made on the spot: `tiny_dir` and friends."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TEXTS = (
    "How do I boil an egg? Put the egg in hot water and wait for nine minutes.",
    "What is the capital of France? The capital of France is Paris.",
    "Please tell me a short story about a cat and a dog who live in a red house.",
    "I am sorry, but I cannot help with that. I can suggest something safer instead.",
)


def build_tokenizer(template: str | None = TEMPLATE, texts: Sequence[str] = TEXTS):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    specials = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=specials, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    raw.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<|pad|>", eos_token="<|end|>")
    tokenizer.chat_template = template
    return tokenizer


def build_model(vocab_size: int, *, seed: int = 0, **changes):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    settings = {
        "vocab_size": vocab_size,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
        "pad_token_id": 0,
        "bos_token_id": None,
        "eos_token_id": 1,
        # Larger than the default 0.02, so that tests of equality see far from uniform logits.
        "initializer_range": 0.2,
    }
    return LlamaForCausalLM(LlamaConfig(**{**settings, **changes}))


def save(folder: Path, *, template: str | None = TEMPLATE, texts: Sequence[str] = TEXTS, **changes) -> Path:
    """Write a model and its tokenizer, trained on `texts`, to `folder`."""
    tokenizer = build_tokenizer(template, texts)
    build_model(len(tokenizer), **changes).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_tokenizer():
    """The tiny tokenizer, made once; do not change it."""
    return build_tokenizer()


@pytest.fixture(scope="session")
def make_tokenizer():
    """`make_tokenizer(template=…)`: a tokenizer of one's own; template None has no chat template."""
    return build_tokenizer


@pytest.fixture(scope="session")
def make_model():
    """`make_model(vocab_size, seed=0, **config)`: a random tiny Llama of one's own."""
    return build_model


@pytest.fixture(scope="session")
def tiny_dir(tmp_path_factory) -> Path:
    """A Hugging Face directory with a random 2-layer Llama and its tokenizer; do not write into it."""
    directory = tmp_path_factory.mktemp("tiny")
    tokenizer = build_tokenizer()
    build_model(len(tokenizer)).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture
def tiny_model(tiny_dir):
    """A fresh copy of the tiny model."""
    from training.models.load import load_causal_lm

    return load_causal_lm(str(tiny_dir))
