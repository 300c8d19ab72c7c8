"""The sections of labelling: who judges, what is asked, what watches over the labels, and what they cost."""

from __future__ import annotations

from typing import Any

from pydantic import Field, ValidationInfo, field_validator, model_validator

from flows.config.fields import ConfigPath, Section, TemplatesRef, knobs, resolve_model
from judges.audit.settings import AuditSettings
from judges.exam.settings import ExamSettings
from judges.records import Status
from judges.settings import JudgeSettings, LabelSettings

EXAMS = "runs/exams.db"
"""Where exams are kept that belong to no run, from the working directory."""


class JudgeSection(JudgeSettings, Section):
    """Who labels the pairs."""

    model: str = Field(min_length=1)
    """A Hugging Face folder (in_process, vllm), or the name under which the server serves its model (openai)."""

    tokenizer: ConfigPath | None = None
    """Folder of the served model or of its tokenizer. With it, prompts travel as token ids, many per request,
    and nothing in a text can become a control token; without it, one chat per request."""

    vllm_environment: ConfigPath | None = None
    """vLLM's own Python environment (kind vllm); by default .venv-vllm in the working directory."""

    @field_validator("model", mode="before")
    @classmethod
    def _folder_or_served_name(cls, value: Any, info: ValidationInfo) -> Any:
        return value if info.data.get("kind") == "openai" else resolve_model(value, info)


class LabelsSection(
    knobs(LabelSettings, filled={}, without=("seed", "batch_pairs")),  # type: ignore[misc]
):
    """What the judge is asked, and when its answer is a preference."""

    templates: TemplatesRef = "default"
    """Template set: default, microworld, small (for small instruct models), or a folder with pairwise.j2."""

    shard_pairs: int = Field(default=256, ge=1, le=4096)
    """Pairs per task; 64 to 512 keep the overhead of a task small."""

    batch_pairs: int = Field(default=256, ge=1, le=4096)
    """Pairs asked and committed together; at most these are asked again after a kill. Few leave a server idle between
    batches, many cost more where a judge is slow or dear."""

    ledger: str | None = Field(default=None, pattern=r"^(sqlite|postgresql)(\+\w+)?://[^\s]+$")
    """URL of the ledger's database, without a password (PGPASSWORD carries it); by default ledger.db in the
    run directory."""

    statuses: tuple[Status, ...] = ("ok",)
    """Labels of these statuses train the reward model."""

    min_usable: float = Field(default=0.1, ge=0, le=1)
    """Training refuses to start when a smaller share of the labels may train."""

    @model_validator(mode="after")
    def _no_password(self) -> LabelsSection:
        host = (self.ledger or "").partition("://")[2].partition("@")
        if host[1] and ":" in host[0]:
            raise ValueError("ledger: leave the password out of the URL; set PGPASSWORD in the environment")
        return self


class ExamSection(knobs(ExamSettings, filled={})):  # type: ignore[misc]
    """The judge's exam, before anything is labelled; without `pairs` there is one in the microworld only."""

    pairs: tuple[ConfigPath, ...] = ()
    """Files of pairs with known answers, in any of the usual formats."""

    generated: int = Field(default=80, ge=20, le=10_000)
    """Pairs on held-out topics that the microworld makes where no files are named."""

    require: bool = True
    """Stop when the judge fails; false goes on with a warning in the report."""


class AuditSection(knobs(AuditSettings, filled={})):  # type: ignore[misc]
    """People's verdicts on the labels, and what training makes of them."""


class PricesSection(Section):
    """Prices, for what the labels cost; without them the report says tokens and seconds. Any one currency."""

    price_per_million_tokens: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """What the judge costs per million tokens that it reads, and that it writes unless those have a price."""

    price_per_million_written_tokens: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """What a million tokens that the judge writes cost, where that is another price."""

    price_per_human_label: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """What one label by a person costs."""

    @model_validator(mode="after")
    def _written_beside_read(self) -> PricesSection:
        if self.price_per_million_written_tokens is not None and self.price_per_million_tokens is None:
            raise ValueError("price_per_million_written_tokens: needs price_per_million_tokens beside it")
        return self
