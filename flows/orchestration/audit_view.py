"""What the audit's page shows: its address, a pair as one reviewer sees it, and verdicts beside the judge's.

Every text is a model's, a user's or a reviewer's, so it is hostile: Jinja escapes it, and characters that control, hide
or turn text round are written out.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlencode

import jinja2
from fastapi import HTTPException, Request
from pydantic import BaseModel, ConfigDict, Field, field_validator

from common.text import clip, printable
from flows.orchestration.audit_page import LONGEST_NOTE
from judges import Ledger
from judges.audit import shown_order
from judges.audit.people import judged
from judges.audit.verdicts import Said, latest_of
from judges.explain import explain
from judges.ledger.reading import LabelledPair, labelled_pairs
from judges.records import Order

ADDRESS = "/charter/audit"
"""Where Prefect's server has the page."""
_TEMPLATES = Path(__file__).parent / "templates"
STATIC = _TEMPLATES / "static"
_TURNS, _LETTERS, _LINES = 4, 1500, 25


class Where(BaseModel):
    """Which labels, who looks at them, and what of them: the query of every address of the page."""

    model_config = ConfigDict(frozen=True)

    run: str = Field(default="runs/microworld", min_length=1, max_length=1000)
    reviewer: str | None = Field(default=None, max_length=100)
    label_set: str | None = Field(default=None, pattern=r"^[0-9a-f]{1,64}$")
    seed: int = Field(default=0, ge=0, lt=2**31)
    pairs: int = Field(default=20, ge=1, le=200)
    pair: str | None = Field(default=None, max_length=1000)
    end: Literal["", "seen", "all", "published"] = ""

    @field_validator("run", "reviewer")
    @classmethod
    def _one_line(cls, text: str) -> str:
        if not text.strip():
            raise ValueError("give a name; a reviewer's is kept with each verdict")
        if printable(text) != text or len(text.splitlines()) > 1:
            raise ValueError("a name has no control characters")
        return text.strip()

    def query(self, **changes: str) -> str:
        """The same labels and reviewer, with changes, as the query of an address."""
        return "?" + urlencode({**self.kept(), **changes})

    def kept(self) -> dict[str, Any]:
        """What every form and link carries on."""
        return self.model_dump(include={"run", "reviewer", "label_set", "seed", "pairs"}, exclude_none=True)


class Answer(Where):
    """A form that came back: a verdict on the pair that has this label."""

    reviewer: str = Field(max_length=100)
    label: str = Field(pattern=r"^[0-9a-f]{64}$")
    said: Said
    note: str = Field(default="", max_length=LONGEST_NOTE)


def link(ledger: Ledger, words: str) -> str:
    """A line of Markdown that leads to the page for this ledger; nothing for a database, which the page does not open.

    It names no host: whoever reads it is on the server already, under whatever name.
    """
    file = ledger.url.removeprefix("sqlite:///")
    if "://" in file:
        return ""
    run = os.path.relpath(file) if Path(file).resolve().is_relative_to(Path.cwd()) else file
    return f"[{words}]({ADDRESS}/?{urlencode({'run': run.removesuffix('/ledger.db')})})"


@dataclass(frozen=True, kw_only=True)
class Folded:
    """A text for the page: its beginning, and the rest, which a click unfolds."""

    name: str
    head: str
    rest: str

    @classmethod
    def of(cls, name: str, text: str) -> Folded:
        """Cut after so many letters or lines, whichever come first."""
        lines = text.splitlines(keepends=True)
        at = min(_LETTERS, sum(map(len, lines[:_LINES])))
        return cls(name=name, head=text[:at], rest=text[at:])


def one_pair(ledger: Ledger, label_set: str, pair_id: str, where: Where) -> dict[str, Any]:
    """What the page shows of a pair. What the judge said of it is not in there.

    Raises HTTPException (404) when the label set has no such pair.
    """
    labelled = next(labelled_pairs(ledger, label_set, pair_ids=[pair_id]), None)
    if labelled is None:
        raise HTTPException(404, f"pair: no {pair_id!r} in label set {label_set[:12]}")
    pair, order = labelled.pair, _order(labelled, where)
    before = latest_of(ledger, where.reviewer or "", [pair.digest]).get((pair.digest, pair.id))
    drawn = {j.principle_id: j.question for j in explain(ledger, labelled.label.digest).judgements}
    turns = [Folded.of(m["role"], m["content"]) for m in pair.prompt]
    texts = {"a": pair.a, "b": pair.b}
    return {
        "label": labelled.label.digest,
        "earlier": turns[:-_TURNS],
        "turns": turns[-_TURNS:],
        "responses": [Folded.of(letter, texts[name]) for letter, name in zip("AB", order, strict=True)],
        "principles": drawn or dict.fromkeys(labelled.label.principles, ""),
        "said": before and _letter(before.winner, order),
        "note": before.why if before else "",
    }


def beside(ledger: Ledger, label_set: str, pairs: Sequence[str], where: Where) -> list[tuple[str, str, str]]:
    """Prompt, the reviewer's verdict and the judge's, in the letters that the reviewer saw, of pairs already judged."""
    found = {one.pair.id: one for one in labelled_pairs(ledger, label_set, pair_ids=pairs)}
    mine = latest_of(ledger, where.reviewer or "", [one.pair.digest for one in found.values()])
    rows = []
    for one in (found[pair] for pair in pairs if pair in found):
        order, judge = _order(one, where), judged(one.label.status, one.label.p)
        if (verdict := mine.get((one.pair.digest, one.pair.id))) is not None:
            said = "no verdict" if judge is None else _letter(judge, order)
            rows.append((clip(one.pair.prompt[-1]["content"], 120), _letter(verdict.winner, order), said))
    return rows


def _order(labelled: LabelledPair, where: Where) -> Order:
    return shown_order(labelled.pair.id, where.reviewer or "", seed=where.seed)


def _letter(winner: str, order: Order) -> str:
    return "tie" if winner == "tie" else "AB"[order.index(winner)]


def renderer(*, artifacts: str) -> Callable[..., str]:
    """Renders a template of the page; an unknown name in one is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )

    def render(template: str, request: Request, **known: Any) -> str:
        root = request.scope.get("root_path", "")
        return environment.get_template(f"{template}.html.j2").render(root=root, artifacts=artifacts, **known)

    return render
