"""The human preference pairs of hh-rlhf, and a small Llama with a tokenizer that knows their words."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from benchmarks.harness.machine import REPOSITORY

PAIRS = REPOSITORY.parent / "shared" / "data" / "hh-rlhf-harmless-base-test.jsonl.gz"
VOCABULARY = 2048
MAX_LENGTH = 1024


def make_model(folder: Path) -> Path:
    """A 3.7M-parameter Llama at random weights in Hugging Face format, the same each time."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<|pad|>", "<|end|>"], initial_alphabet=alphabet
    )
    texts = [message["content"] for pair in read_pairs() for message in pair["messages"]]
    raw.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<|pad|>", eos_token="<|end|>")
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=256,
            intermediate_size=704,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
            pad_token_id=0,
            bos_token_id=None,
            eos_token_id=1,
        )
    )
    target = folder / "model"
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    return target


def read_pairs() -> list[dict[str, Any]]:
    """Every pair as `prompt`, `chosen`, `rejected`, and `messages`, the prompt with its chosen answer."""
    from common.rows import read_preferences

    if not PAIRS.exists():
        raise SystemExit(f"{PAIRS}: not there; it is the test split of hh-rlhf's harmless-base")
    return [
        {
            "prompt": pair.prompt,
            "chosen": pair.chosen,
            "rejected": pair.rejected,
            "messages": [*pair.prompt, {"role": "assistant", "content": pair.chosen}],
        }
        for pair in read_preferences([PAIRS])
    ]


def draw_pairs(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """`count` of the pairs at random, the same each time."""
    return random.Random(seed).sample(read_pairs(), count)
