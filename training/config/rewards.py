"""What a reward is made of, as configuration. Imports no torch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from training.config.base import Strict

_TARGET = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"


class Term(Strict):
    """One part of the reward."""

    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_.-]{1,40}$")
    """How the part is called in the metrics; by default its kind, and a number where several share it."""

    weight: float = 1.0
    """The part's score is multiplied by this before the parts are added up; a dimension's weight."""


class ModelTerm(Term):
    """The score of a reward model."""

    kind: Literal["model"]
    path: str = Field(min_length=1)
    """A sequence-classification model with one label, as training.reward_model writes it."""


class EnsembleTerm(Term):
    """Several reward models as one score (Coste et al. 2023, arXiv 2310.02743, section 3)."""

    kind: Literal["ensemble"]
    paths: tuple[str, ...] = Field(min_length=2)
    """The members' directories."""

    combine: Literal["mean", "min", "uncertainty"] = "mean"
    """mean; min, the worst case; uncertainty, the mean minus `penalty` times the members' variance."""

    penalty: float = Field(default=0.5, ge=0)
    """Weight of the variance under combine: uncertainty."""


class LengthTerm(Term):
    """A penalty on long answers: minus the units beyond `free`, per hundred."""

    kind: Literal["length"]
    unit: Literal["characters", "words"] = "characters"
    """What is counted."""

    free: int = Field(default=0, ge=0)
    """This many units cost nothing."""


class ExactTerm(Term):
    """1 if the answer is the expected text, else 0; case, white space and a final full stop do not count."""

    kind: Literal["exact"]
    answer: str = "answer"
    """The field of the prompt's `meta` that holds the expected text; a prompt without one has no reward."""

    match: Literal["whole", "contains"] = "whole"
    """Compare the whole response, or look for the expected text in it, as whole words and numbers."""


class NumericTerm(Term):
    """1 if the last number in the response is the expected one, else 0."""

    kind: Literal["numeric"]
    answer: str = "answer"
    """The field of the prompt's `meta` that holds the number; a prompt without one has no reward."""

    tolerance: float = Field(default=1e-6, ge=0)
    """Largest relative difference (absolute below 1)."""


class RegexTerm(Term):
    """1 if the pattern is found in the response, else 0."""

    kind: Literal["regex"]
    pattern: str = Field(min_length=1)
    """A Python regular expression; it is searched for, not matched from the start."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        return value


class CheckerTerm(Term):
    """A user's checker of one answer: `check(response, meta)` gives a number, a truth value, or None."""

    kind: Literal["checker"]
    function: str = Field(pattern=_TARGET)
    """module:function, importable where the trainer runs. The only way to have code judge an answer."""


class FunctionTerm(Term):
    """A user's reward of a batch: `reward(conversations, responses)` gives a list of numbers or None."""

    kind: Literal["function"]
    function: str = Field(pattern=_TARGET)
    """module:function, importable where the trainer runs; a judge, for instance."""

    arguments: dict[str, str | int | float | bool] = Field(default={})
    """Handed to the function by name, after conversations and responses."""


class CallableTerm(Term):
    """A reward function handed to `train(…, reward_functions={name: …})` by a Python program."""

    kind: Literal["callable"]
    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,40}$")
    """The name it was handed over under."""


RewardTerm = Annotated[
    ModelTerm
    | EnsembleTerm
    | LengthTerm
    | ExactTerm
    | NumericTerm
    | RegexTerm
    | CheckerTerm
    | FunctionTerm
    | CallableTerm,
    Field(discriminator="kind"),
]


def same_judge(one: RewardTerm, other: RewardTerm) -> bool:
    """Whether two parts judge alike: a reward model in common, or all but name and weight equal."""
    if _models(one) or _models(other):
        return bool(_models(one) & _models(other))
    left_out = {"weight"} if isinstance(one, CallableTerm) else {"weight", "name"}
    return one.model_dump(exclude=left_out) == other.model_dump(exclude=left_out)


def _models(term: RewardTerm) -> set[Path]:
    if isinstance(term, ModelTerm):
        return {Path(term.path).resolve()}
    return {Path(path).resolve() for path in term.paths} if isinstance(term, EnsembleTerm) else set()
