"""The tiny model of the harness, and a server that plays one."""

from __future__ import annotations

import pytest
from harness.model_server import ModelServer
from harness.tiny import make_model, make_tokenizer, tiny_dir, tiny_model, tiny_tokenizer

__all__ = ["make_model", "make_tokenizer", "tiny_dir", "tiny_model", "tiny_tokenizer"]


@pytest.fixture
def server():
    running = ModelServer()
    yield running
    running.stop()
