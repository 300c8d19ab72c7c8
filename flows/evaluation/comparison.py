"""What the matches of several models come to: pair by pair, model by model, and as ratings."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

from flows.evaluation.ratings import rate_models
from flows.evaluation.win_rates import Match, between, head_to_head


def standings(models: Sequence[str], matches: Sequence[Match]) -> dict[str, Any]:
    """`{"pairs": [...], "against_all": {model: ...}}`: head to head, and each model against all others together."""
    return {
        "pairs": [
            {"a": a, "b": b, **head_to_head(between(matches, a, b))} for a, b in combinations(models, 2)
        ],
        "against_all": {
            model: head_to_head([m.seen_from(model) for m in matches if model in (m.a, m.b)])
            for model in models
        },
    }


def ratings(models: Sequence[str], matches: Sequence[Match]) -> dict[str, Any] | None:
    """`{"method", "tie_probability", "models": {model: {"value", "n", "low", "high"}}}`, or None without a scale."""
    found = rate_models(models, matches)
    if found is None:
        return None
    return {
        "method": "Bradley-Terry with Davidson's ties, scale of Elo, mean 1000; 95% intervals",
        "tie_probability": found.tie_probability,
        "models": found.by_model,
    }
