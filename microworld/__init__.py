"""The embedded default: a generated world, its gold oracle, and tiny models that really learn (docs/microworld.md)."""

from pathlib import Path

from common.threads import settle_threads

settle_threads()

WEIGHTS = Path(__file__).parent / "weights"
BASE_MODEL = WEIGHTS / "base"
FEEDBACK_MODEL = WEIGHTS / "feedback"

__all__ = ["BASE_MODEL", "FEEDBACK_MODEL", "WEIGHTS"]
