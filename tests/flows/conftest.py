"""A run small enough for tests: a random tiny Llama plays every model, and its nonsense is labelled all the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def build_model(
    directory: Path, *, template: str | None = TEMPLATE, context: int = 512, seed: int = 0
) -> Path:
    """A random Llama of 30 thousand parameters with a byte-level tokenizer, in Hugging Face format."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    specials = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(
        [], trainers.BpeTrainer(vocab_size=261, special_tokens=specials, initial_alphabet=alphabet)
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        additional_special_tokens=specials[2:],
        chat_template=template,
    )
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=context,
            pad_token_id=0,
            bos_token_id=None,
            eos_token_id=1,
            tie_word_embeddings=True,
        )
    )
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def make_model():
    """`make_model(directory, template=…, context=…, seed=…)`: a random tiny model of one's own."""
    return build_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """The random tiny model, made once; do not change it."""
    return build_model(tmp_path_factory.mktemp("tiny"))


CONSTITUTION = """\
name: tiny
critique:
  principles:
    - {id: safe, critique_request: Is it safe?, revision_request: Make it safe., dimension: harmless}
    - {id: kind, critique_request: Is it kind?, revision_request: Make it kind., dimension: polite}
comparison:
  principles:
    - {id: safer, question: Which is safer?, dimension: harmless}
    - {id: shorter, question: Which is shorter?, dimension: concise}
    - {id: kinder, question: Which is kinder?, dimension: polite}
"""

PROMPTS = [
    "How do I open a jar?",
    "Was ist die Hauptstadt von Österreich?",
    "如何煮鸡蛋？",
    "कृपया मेरी मदद करें",
    "Say <|end|> and {{ braces }} : colon",
    "\n\nHuman: First\n\nAssistant: Yes.\n\nHuman: And then?\n\nAssistant: No.",
    "Why is the sky blue?",
    "Tell me a story.",
]


def small_training(**changes) -> dict:
    return {
        "batch_size": 8,
        "precision": "float32",
        "checkpoint_every": 1,
        "optimizer": {"learning_rate": 1e-3},
        "max_length": 400,
        **changes,
    }


def write_run(folder: Path, model: Path, **changes) -> Path:
    """Prompts, demonstrations, constitution and config of a tiny run in `folder`; returns the config's path.

    `changes` replace whole sections.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"prompt": text, "id": f"p{i}"} for i, text in enumerate(PROMPTS)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    others = [f"{text.replace('First', 'Begin')} Please." for text in PROMPTS]
    held_out = [{"prompt": text, "id": f"e{i}"} for i, text in enumerate(others)]
    (folder / "eval.jsonl").write_text("".join(json.dumps(row) + "\n" for row in held_out), encoding="utf-8")
    (folder / "benign.jsonl").write_text('{"prompt": "Name a fruit."}\n{"prompt": "Name a tree."}\n')
    demonstrations = [
        {"messages": [{"role": "user", "content": p}, {"role": "assistant", "content": "Gladly."}]}
        for p in PROMPTS
    ]
    (folder / "demos.jsonl").write_text("".join(json.dumps(row) + "\n" for row in demonstrations))
    if not (folder / "tiny.yaml").exists():
        (folder / "tiny.yaml").write_text(CONSTITUTION)
    sampling = {"max_new_tokens": 8, "batch_size": 16}
    config = {
        "name": "tiny",
        "runs_dir": "runs",
        "constitution": "./tiny.yaml",
        "allow_unpublished": True,
        "models": {"base": str(model)},
        "judge": {"model": str(model)},
        "prompts": {
            "sl_benign": {"path": "benign.jsonl"},
            "eval": {"path": "eval.jsonl"},
            **{purpose: {"path": "prompts.jsonl"} for purpose in ("sl", "rl")},
        },
        "demonstrations": {"path": "demos.jsonl"},
        "helpful_sft": small_training(),
        "critique_revision": {
            "templates": "microworld",
            "revisions": 2,
            "keep_truncated": True,
            "response": sampling,
            "critique": sampling,
            "revision": sampling,
        },
        "sl_cai": small_training(epochs=2),
        "pairs": {"sampling": sampling},
        # A random judge puts no mass on its options and follows the slot: let that pass for a preference.
        "labels": {
            "templates": "microworld",
            "mass_threshold": 0.0,
            "tie_margin": 0.0,
            "flip_margin": 1.0,
            "shard_pairs": 3,
        },
        "reward_model": small_training(held_out=0.25),
        "rl": {
            "steps": 2,
            "batch_size": 4,
            "minibatches": 1,
            "epochs": 1,
            "max_new_tokens": 8,
            "precision": "float32",
            "checkpoint_every": 1,
        },
        "evaluate": {"sampling": sampling},
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump({**config, **changes}, sort_keys=False))
    return path


@pytest.fixture(scope="session")
def make_run():
    """`make_run(folder, model, **sections)`: a tiny run's files; gives the path of its config."""
    return write_run
