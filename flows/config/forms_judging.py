"""What the flow `judge-exam` asks for, as a form."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field

from flows.config.fields import Form, knobs, plain_fields
from flows.config.judging import EXAMS
from judges import LabelSettings
from judges.exam import ExamSettings


def _in_order(schema: dict[str, Any]) -> None:
    plain_fields(schema)
    for position, field in enumerate(schema["properties"].values()):
        field["position"] = position


class Thresholds(ExamSettings):
    """Sizes and thresholds of an exam, as fields of a form."""

    model_config = ConfigDict(json_schema_extra=_in_order)


class Asking(knobs(LabelSettings, filled={}, without=("templates", "seed", "batch_pairs"))):  # type: ignore[misc]
    """How a judge is asked, as fields of a form. An exam counts for labels that are asked in the same way."""

    model_config = ConfigDict(json_schema_extra=_in_order)


class ExamRequest(Form):
    """One exam of one judge under one constitution."""

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
        description="Ask about so many pairs only, those of the first file first.",
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
        default=EXAMS,
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
    asking: Asking = Field(
        default=Asking(),
        title="How it is asked",
        description="As the labels will be: an exam counts for this way of asking only.",
        json_schema_extra={"position": 11},
    )
