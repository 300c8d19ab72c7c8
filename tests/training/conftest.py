"""The tiny model of the harness, prompts for it, and a reward model on it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from harness.tiny import make_model, make_tokenizer, tiny_dir, tiny_model, tiny_tokenizer

__all__ = ["make_model", "make_tokenizer", "tiny_dir", "tiny_model", "tiny_tokenizer"]

QUESTIONS = ("egg", "a cat and a dog", "What is the capital of France?", "house", "Что?", "Tell me a story")


@pytest.fixture(scope="session")
def prompts_file(tmp_path_factory) -> Path:
    """Six prompts of different lengths."""
    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    rows = [{"id": f"p{i}", "prompt": [{"role": "user", "content": t}]} for i, t in enumerate(QUESTIONS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def reward_dir(tiny_dir, tmp_path_factory) -> str:
    """A reward model with the tiny model's body and a random head; do not write into it."""
    from training.models.load import load_sequence_classifier, load_tokenizer, save_model

    directory = tmp_path_factory.mktemp("reward")
    tokenizer = load_tokenizer(str(tiny_dir))
    model = load_sequence_classifier(str(tiny_dir), new_head=True, seed=5, pad_token_id=0)
    save_model(model, tokenizer, directory)
    return str(directory)
