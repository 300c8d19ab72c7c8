"""A judge's exam on its own, outside of a run: what the command and the flow ask for, and taking it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

import judges.exam
from constitution import Constitution, load
from flows.files import write_atomically
from flows.judging import make_judge
from judges import LabelSettings, Ledger
from judges.exam import ExamReport, ExamSettings
from judges.exam.html import html
from judges.known import KnownPair, read_known_pairs

OUR_PAIRS = Path(judges.exam.__file__).with_name("pairs.json")
GENERATED = 200
"""Pairs of the microworld, where none are given."""


def _in_order(schema: dict[str, Any]) -> None:
    for position, field in enumerate(schema["properties"].values()):
        field["position"] = position


class Thresholds(ExamSettings):
    """Sizes and thresholds of an exam, as fields of a form."""

    model_config = ConfigDict(json_schema_extra=_in_order)


class ExamRequest(BaseModel):
    """One exam of one judge under one constitution."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    judge: str = Field(
        default="microworld/weights/feedback",
        min_length=1,
        title="Judge",
        description="A model folder, or a server's address such as http://127.0.0.1:8000/v1.",
        json_schema_extra={"position": 0},
    )
    constitution: str = Field(
        default="microworld",
        min_length=1,
        title="Constitution",
        description="name@1.2.0, name@^1.2, a working file's name or a path.",
        json_schema_extra={"position": 1},
    )
    pairs: tuple[str, ...] = Field(
        default=(),
        title="Files of pairs with known answers",
        description="prompt/chosen/rejected, hh-rlhf transcripts and other usual formats. Without any: 40 of our own, "
        "or 200 of the microworld where its templates are used.",
        json_schema_extra={"position": 2},
    )
    limit: int | None = Field(
        default=None,
        ge=1,
        title="Pairs at most",
        description="Ask about so many pairs of each file only.",
        json_schema_extra={"position": 3},
    )
    model: str | None = Field(
        default=None,
        title="Name of the served model",
        description="Where a server has several.",
        json_schema_extra={"position": 4},
    )
    tokenizer: str | None = Field(
        default=None,
        title="Folder of the served model",
        description="With it, prompts travel as token ids, and nothing in a text can become a control token.",
        json_schema_extra={"position": 5},
    )
    api_key_env: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        title="Environment variable with the server's key",
        description="Its name, never the key.",
        json_schema_extra={"position": 6},
    )
    templates: str = Field(
        default="default",
        min_length=1,
        title="Template set",
        description="default, microworld, or a folder. The microworld's judge needs its own.",
        json_schema_extra={"position": 7},
    )
    ledger: str = Field(
        default="runs/exams.db",
        min_length=1,
        title="Ledger",
        description="Where judgements and the result are kept: a file, sqlite:///file or postgresql://user@host/name.",
        json_schema_extra={"position": 8},
    )
    page: str | None = Field(
        default="runs/judge-exam.html",
        title="Report as a page",
        description="Where the HTML report is written.",
        json_schema_extra={"position": 9},
    )
    thresholds: Thresholds = Field(
        default=Thresholds(),
        title="What it takes to pass",
        description="Sizes and thresholds.",
        json_schema_extra={"position": 10},
    )


def take(
    request: ExamRequest,
    *,
    on_progress: Callable[[str], None] | None = None,
    on_skipped: Callable[[str], None] | None = None,
) -> ExamReport:
    """Examines the judge, keeps the report in the ledger, and writes its page.

    `on_skipped` hears of the first rows that were no pairs.
    Raises JudgeError, LedgerError or ConstitutionError in one line. A failed exam raises nothing.
    """
    constitution = load(request.constitution)
    known, skipped, source = exam_pairs(request, constitution)
    if on_skipped is not None:
        for line in skipped[:3]:
            on_skipped(line)
    served = "://" in request.judge
    settings = {
        "kind": "openai" if served else "in_process",
        "model": request.model if served else request.judge,
        "dtype": "auto",
        "endpoints": [request.judge],
        "tokenizer": request.tokenizer,
        "revision": None,
        "api_key_env": request.api_key_env,
        "prompts_per_request": 32,
        "concurrency": 8,
        "timeout_s": 120.0,
    }
    with Ledger.open(request.ledger) as ledger:
        report = judges.exam.examine(
            make_judge(settings),
            constitution,
            known,
            ledger=ledger,
            settings=LabelSettings(templates=request.templates),
            exam=request.thresholds,
            source=source,
            on_progress=on_progress,
        )
        judges.exam.save_exam(ledger, report)
    if request.page:
        write_atomically(Path(request.page), html(report))
    return report


def exam_pairs(request: ExamRequest, constitution: Constitution) -> tuple[list[KnownPair], list[str], str]:
    """The pairs, the rows that were passed over, and where the pairs come from.

    A judge that reads the microworld's language only would be asked about a world that it has never seen.
    """
    if not request.pairs and request.templates == "microworld":
        from flows.exam import generated_pairs

        n = request.limit or GENERATED
        if pairs := generated_pairs(constitution, n=n, seed=0, principles=LabelSettings().principles):
            return pairs, [], "generated pairs on held-out topics"
    known, skipped = read_all([Path(p) for p in request.pairs] or [OUR_PAIRS], limit=request.limit)
    return known, skipped, ", ".join(Path(p).name for p in request.pairs) or "our own pairs"


def read_all(paths: list[Path], *, limit: int | None = None) -> tuple[list[KnownPair], list[str]]:
    """The pairs of several files, and a line for each row that was passed over.

    Files often number their pairs alike: an id that came before with another pair gets its file's name.
    """
    pairs: dict[str, KnownPair] = {}
    skipped: list[str] = []
    for path in paths:
        found = read_known_pairs(path, limit=limit)
        skipped += found.skipped
        for known in found.pairs:
            before = pairs.get(known.pair.id)
            if before is not None and before.pair.digest != known.pair.digest:
                known = known.renamed(f"{path.name}:{known.pair.digest[:12]}:{known.pair.id}")
            pairs[known.pair.id] = known
    return list(pairs.values()), skipped
