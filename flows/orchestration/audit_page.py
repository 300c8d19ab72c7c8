"""A page of the audit: its pairs, the order in which a reviewer sees each, its form, and the way back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, Field, create_model

from common.text import plain
from judges import JudgeError, Ledger
from judges.audit import Given, SampledPair, sample, shown_order
from judges.audit.verdicts import Said, judged_by
from judges.explain import explain
from judges.ledger.reading import labelled_pairs
from judges.records import Order, Pair

Form = TypeVar("Form", bound=BaseModel)
LONGEST_NOTE = 4000


@dataclass(frozen=True, kw_only=True)
class Page:
    """Page `number` (from 1) of `of`: pairs, each with the order in which it is shown."""

    number: int
    of: int
    pairs: tuple[tuple[SampledPair, Order], ...]

    def form(self, base: type[Form], filled: Mapping[str, Any] | None = None) -> type[Form]:
        """The form: a verdict and a note for each pair, and a box to stop; `filled` stands in it already."""
        before, fields = filled or {}, dict[str, Any]()
        for n, (sampled, shown) in enumerate(self.pairs, start=1):
            fields[f"verdict_{n}"] = (
                Said,
                Field(
                    default=before.get(f"verdict_{n}", "skip"),
                    title=f"Pair {n}",
                    description=_reminder(sampled.labelled.pair, shown),
                    json_schema_extra={"position": 2 * n},
                ),
            )
            fields[f"note_{n}"] = (
                str,
                Field(
                    default=before.get(f"note_{n}", ""),
                    max_length=LONGEST_NOTE,
                    title=f"Pair {n}: why",
                    description="A note, if you like; it is kept.",
                    json_schema_extra={"position": 2 * n + 1},
                ),
            )
        fields["stop"] = (
            bool,
            Field(
                default=before.get("stop", False),
                title="Stop after this page",
                description="What you gave on it is kept.",
                json_schema_extra={"position": 2 * len(self.pairs) + 2},
            ),
        )
        return create_model("AuditPage", __base__=base, **fields)

    def title(self, field: str) -> str:
        """What the form calls a field."""
        kind, _, number = field.partition("_")
        return {"verdict": f"pair {number}", "note": f"the note on pair {number}"}.get(kind, field)


def _reminder(pair: Pair, shown: Order) -> str:
    """The pair on one line, beside its verdict: a form shows no more there."""
    texts = {"a": pair.a, "b": pair.b}
    parts = [("Asked: ", pair.prompt[-1]["content"]), ("A: ", texts[shown[0]]), ("B: ", texts[shown[1]])]
    return " — ".join(f"{name}{plain(text)}" for name, text in parts)


def next_pages(
    ledger: Ledger, label_set: str, *, reviewer: str, seed: int, per_page: int, pages: int
) -> list[Page]:
    """Pages of what the reviewer has not judged yet, the doubtful pairs first.

    Raises JudgeError without a reviewer, or when nothing is left to judge.
    """
    if not reviewer.strip():
        raise JudgeError("reviewer: give your name; it is kept with each verdict")
    done = judged_by(ledger, reviewer)
    drawn = sample(labelled_pairs(ledger, label_set), per_page * pages, seed=seed, without=done)
    if not drawn:
        raise JudgeError(f"label set {label_set[:12]}: {reviewer} has judged every pair of it")
    shown = [
        (
            SampledPair(labelled=one, explanation=explain(ledger, one.label.digest)),
            shown_order(one.pair.id, reviewer, seed=seed),
        )
        for one in drawn
    ]
    parts = [tuple(shown[i : i + per_page]) for i in range(0, len(shown), per_page)]
    return [Page(number=n, of=len(parts), pairs=part) for n, part in enumerate(parts, start=1)]


def given(page: Page, answers: Mapping[str, Any]) -> list[Given]:
    """The verdicts of a filled-in page, each with the order in which its pair was shown."""
    return [
        Given(
            labelled=sampled.labelled,
            shown=shown,
            said=answers[f"verdict_{n}"],
            note=answers[f"note_{n}"].strip(),
        )
        for n, (sampled, shown) in enumerate(page.pairs, start=1)
    ]
