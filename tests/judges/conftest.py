"""A tiny random model that is a real one, and a small constitution."""

from __future__ import annotations

import tempfile
import uuid
from pathlib import Path

import pytest
from harness.tiny import save

# Letters stand in its texts, so that each is one token, with and without a space. Heads of 32: vLLM's CPU attention
# takes no smaller ones.
JUDGE = {
    "texts": ["Which answer is better, please: A or B? A B A B (A) (B) bake bread wash paper helpful short"]
    * 40,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 2,
    "initializer_range": 0.5,
}


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("model") / "tiny-judge", **JUDGE)


@pytest.fixture(scope="session")
def plain_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without a chat template."""
    return save(tmp_path_factory.mktemp("plain") / "tiny-plain", template=None, **JUDGE)


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
