"""What the flows that look at judging ask for, as forms: `judge-exam`, `compare-models` and `audit-labels`."""

from __future__ import annotations

from typing import Any, Literal

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
    thinking_budget: int | None = Field(
        default=None,
        ge=1,
        le=131_072,
        title="Tokens of a thought",
        description="A model that can think does so before it answers, for so many tokens at most; empty: it does not.",
        json_schema_extra={"position": 12},
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


def _field(position: int, title: str, description: str, default: Any = None, **more: Any) -> Any:
    return Field(
        default=default,
        title=title,
        description=description,
        json_schema_extra={"position": position},
        **more,
    )


class CompareRequest(Form):
    """One comparison of models. Where a model is a run's, what is left out is taken from that run."""

    models: tuple[str, ...] = Field(
        min_length=2,
        max_length=32,
        title="Models",
        description="Two or more: folders, hub ids, or roles of a run such as runs/microworld:rl_cai (rl_cai@1: as its "
        "first attempt had it). Side effects are measured against the first.",
        json_schema_extra={"position": 0},
    )
    prompts: str | None = _field(
        1, "Prompts", "A JSONL or Parquet file; by default the run's held-out prompts."
    )
    constitution: str | None = _field(2, "Constitution", "name@1.2.0, a working file's name or a path.")
    judge: str | None = _field(3, "Judge", "A model folder, or a server such as http://127.0.0.1:8000/v1.")
    judge_model: str | None = _field(4, "Name of the served model", "Where a server has several.")
    tokenizer: str | None = _field(5, "Folder of the served model", "Prompts then travel as token ids.")
    api_key_env: str | None = _field(
        6,
        "Environment variable with the key",
        "Its name, never the key.",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
    )
    templates: str | None = _field(7, "Template set of the judge", "default, microworld, small, or a folder.")
    limit: int | None = _field(8, "Prompts at most", "Take so many prompts from the beginning.", ge=1)
    samples: int = _field(9, "Answers per prompt and model", "Averaged by prompt.", 1, ge=1, le=64)
    max_new_tokens: int | None = _field(10, "Longest answer", "In tokens; 512 by default.", ge=1, le=131_072)
    temperature: float | None = _field(
        11, "Temperature", "1 by default; 0 takes the likeliest.", ge=0, le=100
    )
    top_p: float | None = _field(12, "Top p", "1 by default.", gt=0, le=1)
    dtype: Literal["float32", "bfloat16"] | None = _field(13, "Number format", "float32 by default.")
    batch_size: int = _field(14, "Answers at a time", "Bounds memory.", 128, ge=1, le=65_536)
    seed: int = _field(15, "Seed", "Of the answers and of the draw of principles.", 0, ge=0, lt=2**31)
    folder: str = _field(16, "Folder", "Where answers, judgements and results are kept.", "runs/comparisons")
    ledger: str | None = _field(17, "Ledger", "A file or URL; by default ledger.db in the folder.")
    by_principle: bool = _field(
        18,
        "By principle",
        "Two models: also judge every pair of answers under each comparison principle on its own.",
        False,
    )
    before: str | None = _field(
        19,
        "Constitution before",
        "By principle: the version that the first model was trained on, for the marks of what was edited since. By "
        "default its run's.",
    )


class AuditRequest(Form):
    """Who looks at which labels."""

    run: str = Field(
        default="runs/microworld",
        min_length=1,
        title="Run or ledger",
        description="A run's folder, a ledger's file, or postgresql://user@host/name.",
        json_schema_extra={"position": 0},
    )
    reviewer: str = Field(
        default="",
        max_length=100,
        title="Reviewer",
        description="Your name; it is kept with each verdict.",
        json_schema_extra={"position": 1},
    )
    per_page: int = Field(
        default=5,
        ge=1,
        le=10,
        title="Pairs on a page",
        description="A handful: the form is narrow.",
        json_schema_extra={"position": 2},
    )
    pages: int = Field(
        default=4,
        ge=1,
        le=100,
        title="Pages at most",
        description="Every page has a box to stop there.",
        json_schema_extra={"position": 3},
    )
    seed: int = Field(
        default=0,
        ge=0,
        title="Seed",
        description="The same seed draws the same pairs, less those that you have judged.",
        json_schema_extra={"position": 4},
    )
    label_set: str | None = Field(
        default=None,
        title="Label set",
        description="The beginning of its digest; by default the newest.",
        json_schema_extra={"position": 5},
    )
    patience_s: int = Field(
        default=7200,
        ge=1,
        le=604_800,
        title="Seconds that a page waits",
        description="Then the audit ends with what it has.",
        json_schema_extra={"position": 6},
    )
