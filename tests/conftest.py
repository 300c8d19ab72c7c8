"""What every test may need: a way to ask for a real part, and a stop to accidental hub downloads."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# No example fails for being slow: the machine may be busy.
settings.register_profile("charter", deadline=None)
settings.load_profile("charter")

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def require(part: str, available: bool, why: str) -> None:
    """Skip when a real part is missing; fail instead when CHARTER_REQUIRE_ALL=1 (as CI sets it)."""
    if available:
        return
    message = f"{part} is missing: {why}"
    if os.environ.get("CHARTER_REQUIRE_ALL") == "1":
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session", name="require")
def require_fixture():
    """The function `require`, for tests: conftest modules cannot be imported under importlib mode."""
    return require
