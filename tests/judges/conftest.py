"""A tiny random model that is a real one, and a small constitution."""

from __future__ import annotations

import random
import tempfile
import uuid
from pathlib import Path

import pytest

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
WORDS = "principle question better answer please bake bread wash glass paper helpful harmless honest short".split()


def make_model(
    folder: Path, *, chat_template: str | None = CHAT_TEMPLATE, hidden: int = 64, layers: int = 2
) -> Path:
    """Writes a random LlamaForCausalLM with a byte-level BPE tokenizer to `folder`."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    dice = random.Random(0)
    lines = [" ".join(dice.choices([*WORDS, "(A)", "(B)", "A", "B"], k=12)) for _ in range(400)]
    specials = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=specials, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(lines, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        additional_special_tokens=["<|user|>", "<|assistant|>", "<|system|>"],
    )
    fast.chat_template = chat_template
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=2,  # heads of 32: vLLM's CPU attention takes no smaller ones
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        pad_token_id=fast.pad_token_id,
        eos_token_id=fast.eos_token_id,
        bos_token_id=None,
        initializer_range=0.5,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "tiny-judge")


@pytest.fixture(scope="session")
def plain_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without a chat template."""
    return make_model(tmp_path_factory.mktemp("plain") / "tiny-plain", chat_template=None)


@pytest.fixture(scope="session")
def postgres_server():
    """A real PostgreSQL server; None where pgserver is not installed."""
    try:
        import pgserver
    except ImportError:
        yield None
        return
    # Not under pytest's own folder, which other users (PostgreSQL refuses to run as root) may not enter.
    with tempfile.TemporaryDirectory(prefix="charter-pg-") as folder:
        server = pgserver.get_server(folder)
        yield server
        server.cleanup()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty ledger, once on each database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.db"
    server = request.getfixturevalue("postgres_server")
    request.getfixturevalue("require")("PostgreSQL", server is not None, "pip install pgserver")
    name = f"test_{uuid.uuid4().hex}"
    server.psql(f"CREATE DATABASE {name}")
    return server.get_uri().replace("/postgres?", f"/{name}?")


@pytest.fixture
def ledger(ledger_url: str):
    from judges import Ledger

    with Ledger.open(ledger_url) as opened:
        yield opened


@pytest.fixture
def make_constitution():
    """A constitution of comparison principles: `make_constitution(kind="Which is kinder?", …)`."""
    from constitution import ComparisonPrinciple, Constitution

    def make(**questions: str) -> Constitution:
        principles = tuple(
            ComparisonPrinciple(id=name, question=text, dimension="helpful")
            for name, text in questions.items()
        )
        return Constitution(name="test", metadata={}, comparison=principles)

    return make


@pytest.fixture
def make_pairs():
    """`make_pairs(n)`: n pairs whose response `a` is the longer one."""
    from judges import Pair

    def make(n: int, prefix: str = "pair") -> list[Pair]:
        return [
            Pair(
                id=f"{prefix}-{i:05d}",
                prompt=({"role": "user", "content": f"Question {i}: how?"},),
                a=f"A long and patient answer to question {i}.",
                b=f"No {i}.",
            )
            for i in range(n)
        ]

    return make
