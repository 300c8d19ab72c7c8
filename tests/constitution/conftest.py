"""A constitution to vary, and a folder of one's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from constitution.model import ComparisonPrinciple, Constitution, CritiquePrinciple


@pytest.fixture
def make_constitution() -> Callable[..., Constitution]:
    """make(weights={"id": weight, …}, **fields): both halves have a principle for each id."""

    def make(weights: dict[str, float], **fields: object) -> Constitution:
        parts: dict[str, object] = {
            "comparison": tuple(
                ComparisonPrinciple(id=i, question=f"Which is more {i}?", dimension="helpful", weight=w)
                for i, w in weights.items()
            ),
            "critique": tuple(
                CritiquePrinciple(
                    id=i,
                    critique_request=f"Is it {i}?",
                    revision_request=f"Make it {i}.",
                    dimension="helpful",
                    weight=w,
                )
                for i, w in weights.items()
            ),
        }
        return Constitution(name="made", metadata={}, **(parts | fields))  # type: ignore[arg-type]

    return make


@pytest.fixture
def library_root(tmp_path: Path) -> Path:
    """A folder with one working file, kindness.yaml."""
    root = tmp_path / "constitutions"
    root.mkdir()
    (root / "kindness.yaml").write_text(
        "# Ours.\n"
        "name: kindness\n"
        "comparison:\n"
        "  principles:\n"
        "    - id: kind\n"
        "      question: Which answer is kinder?\n"
        "      dimension: polite\n"
        "    - id: brief\n"
        "      question: Which answer wastes fewer words?\n"
        "      dimension: concise\n"
        "      weight: 2\n",
        encoding="utf-8",
    )
    return root
