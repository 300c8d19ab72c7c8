"""Head to head by gold: which of two policies' answers wins, and how long both are."""

from __future__ import annotations

from typing import Any

from studies.replication.jobs import Study
from studies.replication.world import read_lines


def compared(study: Study, first: str, second: str) -> tuple[list[float], list[tuple[float, float]]]:
    """Per held-out prompt and sample: 1 where gold prefers the first job's answer, 0 the second's, 0.5 a tie; and the
    words of both."""
    a, b = (read_lines(study.work(name) / "answers.jsonl") for name in (first, second))
    assert [row["id"] for row in a] == [row["id"] for row in b], (
        "both answered the same prompts in the same order"
    )
    wins = [_win(x, y) for x, y in zip(a, b, strict=True)]
    return wins, [(float(x["words"]), float(y["words"])) for x, y in zip(a, b, strict=True)]


def _win(first: dict[str, Any], second: dict[str, Any]) -> float:
    if abs(first["gold"] - second["gold"]) < 1e-9:
        return 0.5
    return float(first["gold"] > second["gold"])
