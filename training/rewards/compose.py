"""Rewards that compose: the weighted sum of named parts, each a list of numbers or None per response.

None means that a part could not be computed. It makes the whole reward missing, never zero: such a response
is left out of the update and counted.
"""

from __future__ import annotations

import importlib
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from common.chat import Conversation
from common.rows import Prompt
from training.config.rewards import (
    CallableTerm,
    CheckerTerm,
    EnsembleTerm,
    ExactTerm,
    FunctionTerm,
    LengthTerm,
    ModelTerm,
    NumericTerm,
    RegexTerm,
    RewardTerm,
)
from training.errors import TrainingError
from training.models.files import check_model
from training.rewards import checkers

if TYPE_CHECKING:
    import torch

RewardFn = Callable[[Sequence[Conversation], Sequence[str]], Sequence[float | None]]
Scores = list[float | None]
Part = Callable[[Sequence[Prompt], Sequence[str]], Scores]


@dataclass(frozen=True, kw_only=True)
class Scored:
    """`total` is the weighted sum; `parts` the unweighted scores by name."""

    total: Scores
    parts: dict[str, Scores]


class Reward:
    """Named, weighted parts."""

    def __init__(self, parts: Mapping[str, tuple[float, Part]]) -> None:
        self.parts = dict(parts)

    def __call__(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Scored:
        """Score responses. Raises TrainingError when a user's function fails or returns something else."""
        scores = {
            name: _clean(part(prompts, responses), len(responses), name)
            for name, (_, part) in self.parts.items()
        }
        weights = [weight for weight, _ in self.parts.values()]
        total: Scores = []
        for row in zip(*scores.values(), strict=True):
            known = [value for value in row if value is not None]
            whole = len(known) == len(row)
            total.append(sum(w * v for w, v in zip(weights, known, strict=True)) if whole else None)
        return Scored(total=total, parts=scores)


def check_terms(terms: Sequence[RewardTerm], functions: Mapping[str, RewardFn]) -> None:
    """Look at models and functions before anything heavy is loaded. Raises TrainingError."""
    for term in terms:
        if isinstance(term, ModelTerm):
            check_model(term.path, head="reward")
        elif isinstance(term, EnsembleTerm):
            for path in term.paths:
                check_model(path, head="reward")
        elif isinstance(term, (CheckerTerm, FunctionTerm)):
            _import(term.function)
        elif isinstance(term, CallableTerm) and term.name not in functions:
            raise TrainingError(
                f"rewards: no function {term.name!r} was given; have {', '.join(functions) or 'none'}"
            )


def build_reward(
    terms: Sequence[RewardTerm],
    *,
    functions: Mapping[str, RewardFn] | None = None,
    device: torch.device | str = "cpu",
    micro_batch_tokens: int = 16384,
    autocast: Callable[[], AbstractContextManager] = nullcontext,
) -> Reward:
    """Load models and functions. Raises TrainingError."""
    from training.rewards.scoring import RewardScorer

    def model(path: str) -> Part:
        return _batch(
            RewardScorer.load(path, device=device, micro_batch_tokens=micro_batch_tokens, autocast=autocast)
        )

    counts = Counter(term.name or term.kind for term in terms)
    seen: Counter[str] = Counter()
    parts: dict[str, tuple[float, Part]] = {}
    for term in terms:
        name = term.name or term.kind
        seen[name] += 1
        if counts[name] > 1:
            name = f"{name}_{seen[name]}"
        parts[name] = (term.weight, _part(term, model, functions or {}))
    return Reward(parts)


def combine(members: Sequence[Scores], *, how: str, penalty: float) -> Scores:
    """An ensemble's scores: the members' mean, their minimum (worst case), or mean - penalty * variance
    (uncertainty-weighted). Coste et al. 2023, arXiv 2310.02743, equations 3 to 5."""
    combined: Scores = []
    for row in zip(*members, strict=True):
        known = [value for value in row if value is not None]
        if len(known) < len(row):
            combined.append(None)
            continue
        mean = sum(known) / len(known)
        variance = sum((value - mean) ** 2 for value in known) / len(known)
        combined.append({"mean": mean, "min": min(known), "uncertainty": mean - penalty * variance}[how])
    return combined


def _part(term: RewardTerm, model: Callable[[str], Part], functions: Mapping[str, RewardFn]) -> Part:
    if isinstance(term, ModelTerm):
        return model(term.path)
    if isinstance(term, EnsembleTerm):
        members = [model(path) for path in term.paths]
        how, penalty = term.combine, term.penalty
        return lambda prompts, responses: combine(
            [member(prompts, responses) for member in members], how=how, penalty=penalty
        )
    if isinstance(term, LengthTerm):
        return _length(term.unit, term.free)
    if isinstance(term, ExactTerm):
        return _each(checkers.exact(answer=term.answer, contains=term.match == "contains"))
    if isinstance(term, NumericTerm):
        return _each(checkers.numeric(answer=term.answer, tolerance=term.tolerance))
    if isinstance(term, RegexTerm):
        return _each(checkers.matches(term.pattern))
    if isinstance(term, CheckerTerm):
        return _each(_guarded(_import(term.function), term.function))
    if isinstance(term, FunctionTerm):
        function = partial(_import(term.function), **term.arguments)
        return _batch(_guarded(function, term.function))
    return _batch(functions[term.name])


def _each(checker: checkers.Checker) -> Part:
    return lambda prompts, responses: [
        checker(response, prompt.meta) for prompt, response in zip(prompts, responses, strict=True)
    ]


def _batch(function: RewardFn) -> Part:
    return lambda prompts, responses: list(function([prompt.prompt for prompt in prompts], responses))


def _length(unit: str, free: int) -> Part:
    def score(prompts: Sequence[Prompt], responses: Sequence[str]) -> Scores:
        sizes = [len(text) if unit == "characters" else len(re.findall(r"\S+", text)) for text in responses]
        return [-max(0, size - free) / 100 for size in sizes]

    return score


def _clean(scores: Any, count: int, name: str) -> Scores:
    """Numbers as floats; a number that is not finite is no score."""
    try:
        values = list(scores)
        result = [None if value is None else float(value) for value in values]
    except (TypeError, ValueError) as error:
        raise TrainingError(f"reward {name}: expected numbers or None, got {scores!r:.80}") from error
    if len(result) != count:
        raise TrainingError(f"reward {name}: gave {len(result)} scores for {count} responses")
    return [value if value is not None and math.isfinite(value) else None for value in result]


def _guarded(function: Callable[..., Any], target: str) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except Exception as error:  # the user's code; whatever it raises is theirs to see
            raise TrainingError(f"reward {target}: {type(error).__name__}: {error}") from error

    return call


def _import(target: str) -> Callable[..., Any]:
    """The function behind "module:function"."""
    module_name, _, name = target.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), name, None)
    except Exception as error:  # a missing module, or whatever the module raises
        raise TrainingError(f"reward {target}: cannot be imported: {error}") from error
    if not callable(function):
        raise TrainingError(f"reward {target}: the module has no function {name}")
    return function
