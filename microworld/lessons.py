"""What the microworld's models read in pretraining, phase by phase: kinds of examples and their shares."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A stretch of training: millions of tokens, shares of rows by kind, and whether the learning rate falls."""

    tokens: float
    mix: dict[str, float]
    falls: bool = True


LESSONS = {
    "judgement": 0.56,
    "revision": 0.2,
    "critique": 0.06,
    "good_chat": 0.08,
    "document": 0.04,
    "recall": 0.06,
}
# Facts come second: a judge that does not yet see what an answer is gains nothing from checking what it claims.
_FACTS = {
    "judgement": 0.53,
    "revision": 0.17,
    "critique": 0.05,
    "good_chat": 0.06,
    "document": 0.04,
    "recall": 0.02,
    "fact_chat": 0.04,
    "fact_critique": 0.09,
}
PHASES = {
    "base": [Phase(tokens=3.0, mix={"chat": 0.7, "document": 0.15, "recall": 0.15})],
    "feedback": [Phase(tokens=6.0, mix=LESSONS, falls=False), Phase(tokens=8.0, mix=_FACTS)],
}
