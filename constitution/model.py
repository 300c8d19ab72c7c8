"""What a loaded constitution is: principles, exemplars, digests, and the error that a bad file raises."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import NamedTuple

from common.digest import digest

Message = Mapping[str, str]
"""One turn: {"role": "user" | "assistant" | "system", "content": text}."""


class Problem(NamedTuple):
    """One thing wrong in one file. `line` counts from 1; None when no line is to blame."""

    file: str
    line: int | None
    message: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.message}" if place else self.message


class ConstitutionError(ValueError):
    """A constitution that cannot be used. `problems` holds all that was found, str() is one line."""

    def __init__(self, problems: Problem | Iterable[Problem] | str) -> None:
        if isinstance(problems, str):
            problems = Problem("", None, problems)
        self.problems: list[Problem] = [problems] if isinstance(problems, Problem) else list(problems)
        line = str(self.problems[0])
        if len(self.problems) > 1:
            line += (
                f" (and {len(self.problems) - 1} more: charter constitution check {self.problems[0].file})"
            )
        super().__init__(line)


@dataclass(frozen=True, kw_only=True)
class CritiquePrinciple:
    """One critique request with its revision request (Bai et al. 2022, section 3.1)."""

    id: str
    critique_request: str
    revision_request: str
    dimension: str
    weight: float = 1.0
    enabled: bool = True
    note: str = ""

    @property
    def text(self) -> str:
        """Both requests, as one line for people."""
        return f"{self.critique_request} → {self.revision_request}"

    @cached_property
    def digest(self) -> str:
        """Digest of what the model reads; the id, the weight and the note are not part of it."""
        return digest({"critique_request": self.critique_request, "revision_request": self.revision_request})


@dataclass(frozen=True, kw_only=True)
class ComparisonPrinciple:
    """One question that a judge answers about two responses (Bai et al. 2022, section 4.1)."""

    id: str
    question: str
    dimension: str
    weight: float = 1.0
    enabled: bool = True
    note: str = ""

    @property
    def text(self) -> str:
        """The question, under the name that both kinds of principle share."""
        return self.question

    @cached_property
    def digest(self) -> str:
        """Digest of what the judge reads; the id, the weight and the note are not part of it."""
        return digest({"question": self.question})


Principle = CritiquePrinciple | ComparisonPrinciple


@dataclass(frozen=True, kw_only=True)
class CritiqueExemplar:
    """A worked critique and revision. It carries its own requests, so editing a principle leaves it alone."""

    conversation: tuple[Message, ...]
    response: str
    critique_request: str
    critique: str
    revision_request: str
    revision: str


@dataclass(frozen=True, kw_only=True)
class ComparisonExemplar:
    """A worked comparison; `better` is "a" or "b". It carries its own question, as above."""

    conversation: tuple[Message, ...]
    question: str
    a: str
    b: str
    better: str
    rationale: str = ""


@dataclass(frozen=True, kw_only=True)
class Constitution:
    """A checked constitution: `extends` resolved, texts normalised, principles in file order (disabled too).

    `version` is None and `published` False for a working file.
    """

    name: str
    version: str | None = None
    published: bool = False
    description: str = ""
    metadata: Mapping[str, str]
    critique: tuple[CritiquePrinciple, ...] = ()
    comparison: tuple[ComparisonPrinciple, ...] = ()
    critique_exemplars: tuple[CritiqueExemplar, ...] = ()
    comparison_exemplars: tuple[ComparisonExemplar, ...] = ()

    @property
    def ref(self) -> str:
        """`name@version`, or for a working file its name marked as such with the head of its digest."""
        return (
            f"{self.name}@{self.version}"
            if self.published
            else f"{self.name} (working file {self.digest[:8]})"
        )

    @cached_property
    def digest(self) -> str:
        """Digest of everything said in the file, with notes and disabled principles; not of the version."""
        return digest(
            {
                "name": self.name,
                "description": self.description,
                "metadata": dict(self.metadata),
                "critique": {p.id: vars_of(p) for p in self.critique},
                "comparison": {p.id: vars_of(p) for p in self.comparison},
                "critique_exemplars": [vars_of(e) for e in self.critique_exemplars],
                "comparison_exemplars": [vars_of(e) for e in self.comparison_exemplars],
            }
        )

    @cached_property
    def critique_digest(self) -> str:
        """Digest of what critiques and revisions depend on: enabled principles, weights, exemplars."""
        return digest(_half(self.critique, self.critique_exemplars))

    @cached_property
    def comparison_digest(self) -> str:
        """Digest of what labels depend on: enabled principles, weights, exemplars."""
        return digest(_half(self.comparison, self.comparison_exemplars))


def vars_of(item: Principle | CritiqueExemplar | ComparisonExemplar) -> dict[str, object]:
    """An item's fields as plain JSON data, for digests.

    Fields at their default are left out, so that a field that a later Charter adds changes no digest.
    """
    data: dict[str, object] = {}
    for field in fields(item):
        value = getattr(item, field.name)
        if value != field.default:
            data[field.name] = [dict(turn) for turn in value] if field.name == "conversation" else value
    return data


def _half(
    principles: Iterable[Principle], exemplars: Iterable[CritiqueExemplar | ComparisonExemplar]
) -> object:
    enabled = [p for p in principles if p.enabled]
    return {
        "principles": {
            p.id: {"text": p.digest, "weight": p.weight, "dimension": p.dimension} for p in enabled
        },
        "exemplars": [vars_of(e) for e in exemplars],
    }
