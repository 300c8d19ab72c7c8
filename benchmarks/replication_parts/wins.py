"""Head to head by gold: win rates of one policy's answers over another's, as they are and at equal length."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from replication_parts.jobs import Study
from replication_parts.world import read_lines


def compared(study: Study, first: str, second: str) -> tuple[list[float], list[float]]:
    """Per held-out prompt and sample: 1 where gold prefers the first job's answer, 0 the second's, 0.5 a tie; and by
    how many words the first is longer."""
    a, b = (read_lines(study.work(name) / "answers.jsonl") for name in (first, second))
    assert [row["id"] for row in a] == [row["id"] for row in b], (
        "both answered the same prompts in the same order"
    )
    wins = [_win(x, y) for x, y in zip(a, b, strict=True)]
    return wins, [float(x["words"] - y["words"]) for x, y in zip(a, b, strict=True)]


def _win(first: dict[str, Any], second: dict[str, Any]) -> float:
    if abs(first["gold"] - second["gold"]) < 1e-9:
        return 0.5
    return float(first["gold"] > second["gold"])


def at_equal_length(wins: Sequence[float], longer: Sequence[float]) -> float:
    """The win rate that a logistic regression on the difference in length predicts for answers of equal length.

    After Lee et al. 2023 (arXiv 2309.00267, appendix on response length), who regress on the ratio of lengths, and
    Dubois et al. 2024 (arXiv 2404.04475), on the tanh of the scaled difference. Here the difference itself is scaled
    to unit variance; Newton's method, with a ridge of 1e-6 so that it has a solution where wins follow from lengths
    without exception.
    """
    import numpy as np

    x = np.asarray(longer, dtype=float)
    spread = x.std()
    design = np.stack([np.ones_like(x), x / spread if spread > 0 else x], axis=1)
    y = np.asarray(wins, dtype=float)
    beta = np.zeros(2)
    for _ in range(100):
        p = 1 / (1 + np.exp(-np.clip(design @ beta, -30, 30)))
        gradient = design.T @ (y - p) - 1e-6 * beta
        hessian = design.T @ (design * (p * (1 - p))[:, None]) + 1e-6 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        beta += step
        if np.abs(step).max() < 1e-10:
            break
    return 1 / (1 + math.exp(-float(beta[0])))
