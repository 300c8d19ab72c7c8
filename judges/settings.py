"""Who judges, and how labels are made: settings that forms, configurations and the library share."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from engines.settings import Endpoint, VllmSettings
from judges.asking.combine import Margins
from judges.openai_judge import Prices
from judges.records import Sampling
from judges.thinking import Thinking, yaml_word


class JudgeSettings(VllmSettings):
    """Who judges: a model that is loaded in this process, vLLM servers that are started for it, or servers of yours."""

    kind: Literal["in_process", "vllm", "openai"] = Field(
        default="in_process",
        description="in_process loads a model here; vllm starts vLLM servers of it and ends them; openai asks "
        "servers of yours with OpenAI's HTTP surface, such as vLLM.",
    )
    model: str | None = Field(
        default=None,
        min_length=1,
        description="A Hugging Face folder (in_process, vllm), or the name under which the server serves its model "
        "(openai); that may be left out where a server has only one.",
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="Number format: auto is, in process, bfloat16 where the machine computes it fast, else float32; "
        "for vLLM, float32 on a CPU and the model's own on a GPU.",
    )
    endpoints: tuple[Endpoint, ...] = Field(
        default=(),
        description="Base URLs of the servers, such as http://127.0.0.1:8000/v1; requests are spread over them.",
    )
    api_key_env: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="Name of the environment variable that holds the key, for servers that ask for one.",
    )
    tokenizer: Path | None = Field(
        default=None,
        description="Folder of the served model or of its tokenizer. With it, prompts travel as token ids, many per "
        "request, and nothing in a text can become a control token; without it, one chat per request.",
    )
    revision: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="Which weights a server serves, where `tokenizer` is no folder with the weights. A label is of one "
        "revision.",
    )
    thinking: Thinking | None = Field(
        default=None,
        description="Whether a model that can think does so before it answers: off, on, or {budget: tokens}; thoughts "
        "are kept in the ledger and go into no other prompt. By default prompts rendered here leave thoughts out, and "
        "servers that render do as their template says.",
    )
    concurrency: int = Field(
        default=8, ge=1, le=1024, description="Requests under way at the same time, per server."
    )
    prompts_per_request: int = Field(
        default=32,
        ge=1,
        le=1024,
        description="Most prompts per request, fewer where they are long; for token ids.",
    )
    timeout_s: float = Field(
        default=120.0,
        gt=0,
        le=3600,
        description="Seconds that a server may take for one request; in proportion more where it has many tokens.",
    )

    @field_validator("thinking", mode="before")
    @classmethod
    def _words(cls, value: Any) -> Any:
        return yaml_word(value)

    @model_validator(mode="after")
    def _fields_fit_the_kind(self) -> Self:
        if self.kind != "vllm" and (names := self.changed()):
            raise ValueError(f"{names[0]}: belongs to kind vllm, not to {self.kind}")
        if self.kind == "openai":
            if not self.endpoints:
                raise ValueError(
                    "endpoints: kind openai needs at least one, such as http://127.0.0.1:8000/v1"
                )
            return self
        if self.model is None:
            raise ValueError(f"model: kind {self.kind} needs a folder")
        if self.endpoints:
            raise ValueError(
                f"endpoints: kind {self.kind} asks no server of yours; set kind: openai, or remove them"
            )
        if self.tokenizer or self.revision:
            raise ValueError(
                f"tokenizer and revision belong to kind openai; a judge of kind {self.kind} has its own"
            )
        if self.api_key_env and self.kind == "vllm":
            raise ValueError(
                "api_key_env: belongs to kind openai; servers of kind vllm get a key of their own"
            )
        return self

    def vllm(self) -> VllmSettings:
        """What vLLM is started with."""
        return VllmSettings(**{name: getattr(self, name) for name in VllmSettings.model_fields})


class PricedJudge(JudgeSettings):
    """A judge whose readings say what they cost, where its tokens have a price."""

    prices: Prices | None = None


class LabelSettings(BaseModel):
    """What a labelling run asks and when a mean counts as a preference."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    templates: str = Field(
        default="default",
        description="Template set: default, microworld, small, or a folder with pairwise.j2.",
    )
    seed: int = Field(default=0, ge=0, description="Seed of the draw of principles and of what is sampled.")
    principles: int = Field(
        default=1, ge=1, le=64, description="Principles drawn per pair; their answers are averaged."
    )
    readout: Literal["logprobs", "verdict"] = Field(
        default="logprobs",
        description="logprobs reads the options' probabilities; verdict asks for JSON, for judges without them.",
    )
    rationales: int = Field(
        default=0,
        ge=0,
        le=32,
        description="Chains of thought written before each answer; their answers are averaged. 0: none.",
    )
    rationale_tokens: int = Field(
        default=256, ge=1, le=16_384, description="Longest rationale, in tokens; a longer one is truncated."
    )
    temperature: float = Field(
        default=0.7, ge=0.0, le=2.0, description="Temperature at which rationales are written."
    )
    clamp_low: float = Field(
        default=0.4,
        ge=0.0,
        lt=0.5,
        description="After a rationale or in a verdict, probabilities are near 0 or 1: labels below this are raised "
        "to it.",
    )
    clamp_high: float = Field(
        default=0.6, gt=0.5, le=1.0, description="There, labels above this are lowered to it."
    )
    mass_threshold: float = Field(
        default=0.5,
        ge=0.0,
        le=1.0,
        description="Less probability than this on the options together is no_answer.",
    )
    tie_margin: float = Field(
        default=0.05,
        ge=0.0,
        lt=0.5,
        description="A mean closer to one half than this is a tie, and so is one half.",
    )
    flip_margin: float = Field(
        default=0.1,
        ge=0.0,
        le=1.0,
        description="Orders that name different winners and differ by more than this are inconsistent.",
    )
    batch_pairs: int = Field(
        default=256,
        ge=1,
        le=4096,
        description="Pairs asked and committed together, and at most asked again; few leave a server idle in between.",
    )

    @model_validator(mode="after")
    def _several_rationales_differ(self) -> LabelSettings:
        if self.rationales > 1 and self.temperature == 0.0:
            raise ValueError("rationales: several at temperature 0 are all the same; raise temperature")
        return self

    @property
    def margins(self) -> Margins:
        """The thresholds that turn readings into a status."""
        return Margins(mass=self.mass_threshold, tie=self.tie_margin, flip=self.flip_margin)

    @property
    def writes(self) -> bool:
        """Whether the judge writes before it answers."""
        return self.rationales > 0 or self.readout == "verdict"

    @property
    def samples(self) -> int:
        """Answers per judge, principle and order."""
        return max(1, self.rationales)

    def sampling(self, sample: int) -> Sampling:
        """How rationale number `sample` is written; one verdict alone is written greedily."""
        temperature = self.temperature if self.rationales else 0.0
        return Sampling(
            max_tokens=self.rationale_tokens, temperature=temperature, seed=1000 * self.seed + sample
        )

    def clamped(self, p: float) -> float:
        """`p` held to the clamp where the judge writes (Bai et al. 2022, section 4.3), otherwise as it is.

        A verdict is a rationale and a letter, so its probability is 0 or 1 and it is held as well.
        """
        return min(max(p, self.clamp_low), self.clamp_high) if self.writes else p

    def key(self) -> dict[str, Any]:
        """What of the settings determines a label, given its judgements."""
        key: dict[str, Any] = {"mass": self.mass_threshold, "tie": self.tie_margin, "flip": self.flip_margin}
        if self.writes:
            key |= {"clamp": [self.clamp_low, self.clamp_high]}
        return key
