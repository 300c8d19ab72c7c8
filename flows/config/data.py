"""The sections of a run's configuration that are not a trainer's."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from flows.config.fields import ConfigPath, ModelRef, Section, TemplatesRef, knobs, resolve_model
from judges.records import Status
from judges.settings import LabelSettings


class ModelsSection(Section):
    """The models that the run starts from."""

    base: ModelRef
    """The pretrained model: a Hugging Face folder with safetensors weights, or a hub id."""

    critic: ModelRef | None = None
    """Criticises and revises. Without one, the helpful-only model does."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number format in which models sample."""


class JudgeSection(Section):
    """Who labels the pairs."""

    kind: Literal["in_process", "openai"] = "in_process"
    """in_process loads a model here; openai asks servers that speak OpenAI's HTTP surface, such as vLLM."""

    model: str = Field(min_length=1)
    """A Hugging Face folder (in_process), or the name under which the server serves its model (openai)."""

    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of an in_process judge: auto is bfloat16 where the machine computes it fast, else float32."""

    endpoints: tuple[Annotated[str, Field(pattern=r"^https?://[^@\s]+$")], ...] = ()
    """Base URLs of the servers, such as http://127.0.0.1:8000/v1; requests are spread over them."""

    api_key_env: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Name of the environment variable that holds the key, for servers that ask for one."""

    tokenizer: ConfigPath | None = None
    """Folder of the served model or of its tokenizer. With it, prompts travel as token ids, many per request,
    and nothing in a text can become a control token; without it, one chat per request."""

    revision: str | None = Field(default=None, min_length=1, max_length=200)
    """Which weights a server serves, where `tokenizer` is no folder with the weights. A label is of one revision."""

    concurrency: int = Field(default=8, ge=1, le=1024)
    """Requests under way at the same time, per server."""

    prompts_per_request: int = Field(default=32, ge=1, le=1024)
    """Prompts per request, where a tokenizer is given."""

    timeout_s: float = Field(default=120.0, gt=0, le=3600)
    """Seconds that a server may take for one request."""

    @field_validator("model", mode="before")
    @classmethod
    def _folder_or_served_name(cls, value: Any, info: ValidationInfo) -> Any:
        return value if info.data.get("kind") == "openai" else resolve_model(value, info)

    @model_validator(mode="after")
    def _endpoints_fit(self) -> JudgeSection:
        if self.kind == "openai" and not self.endpoints:
            raise ValueError("endpoints: kind openai needs at least one, such as http://127.0.0.1:8000/v1")
        if self.kind == "in_process" and self.endpoints:
            raise ValueError("endpoints: kind in_process asks no server; set kind: openai, or remove them")
        if self.kind == "in_process" and (self.tokenizer or self.revision):
            raise ValueError("tokenizer and revision belong to kind openai; an in_process judge has its own")
        return self


class PromptFile(Section):
    """A file of prompts, in any of the formats of docs/data.md."""

    path: ConfigPath
    """The file. Of whole conversations, what stands before the last answer is asked."""

    limit: int | None = Field(default=None, ge=1)
    """Take this many distinct prompts from the beginning."""


class PromptsSection(Section):
    """The user's own prompts, by what they are for."""

    sl: PromptFile
    """Red-team prompts, whose answers are criticised and revised."""

    sl_benign: PromptFile | None = None
    """Harmless prompts: the helpful-only model's answers to them are kept as they are, so that the model
    learns to refuse only what it should."""

    rl: PromptFile
    """Prompts of the preference pairs and of reinforcement learning."""

    eval: PromptFile
    """Held-out prompts, answered by every model at the end."""


class WorldSection(Section):
    """How many rows the microworld writes."""

    demonstrations: int = Field(default=1200, ge=1, le=1_000_000)
    """Demonstrations of a helpful-only assistant."""

    sl: int = Field(default=1000, ge=5, le=1_000_000)
    """Prompts of critique and revision, harmful ones and harmless ones together."""

    rl: int = Field(default=1600, ge=5, le=1_000_000)
    """Prompts of preference pairs and of reinforcement learning."""

    eval: int = Field(default=560, ge=5, le=1_000_000)
    """Prompts on held-out topics."""


class DemonstrationsSection(Section):
    """Demonstrations for helpful-only fine-tuning."""

    path: ConfigPath
    """Conversations whose last turn is the assistant's, in any of the formats of docs/data.md."""


class Sampling(Section):
    """How answers are drawn."""

    temperature: float = Field(default=1.0, ge=0, le=100)
    """Softmax temperature; 0 takes the likeliest token."""

    top_p: float = Field(default=1.0, gt=0, le=1)
    """Draw from the smallest set of tokens with this much probability."""

    max_new_tokens: int = Field(default=512, ge=1, le=131_072)
    """Longest answer in tokens."""

    batch_size: int = Field(default=128, ge=1, le=65_536)
    """Answers drawn at the same time; bounds memory, does not change what is drawn."""


class CritiqueRevisionSection(Section):
    """Answers of the helpful-only model, criticised and revised."""

    revisions: int = Field(default=1, ge=1, le=8)
    """Critique-revision steps per answer, each with a principle of its own."""

    templates: TemplatesRef = "default"
    """Template set: default, microworld, or a folder with critique.j2 and revision.j2."""

    keep_truncated: bool = False
    """Train on answers that were cut off at max_new_tokens too."""

    response: Sampling = Sampling()
    """The first answers."""

    critique: Sampling = Sampling(temperature=0.7, max_new_tokens=256)
    """The critiques."""

    revision: Sampling = Sampling(temperature=0.7)
    """The revisions."""


class PairsSection(Section):
    """Pairs of answers of the SL-CAI model to label."""

    sampling: Sampling = Sampling()
    """The two answers to each prompt."""

    contrast: Literal["base", "helpful_only"] | None = None
    """The model that gives the second answer of some pairs, so that the reward model also sees what the SL-CAI
    model hardly says; without one, both answers are always the SL-CAI model's."""

    contrast_share: float = Field(default=0.5, gt=0, le=1)
    """Share of the prompts whose second answer is the contrast model's."""


class LabelsSection(
    knobs(LabelSettings, filled={}, without=("seed", "batch_pairs")),  # type: ignore[misc]
):
    """What the judge is asked, and when its answer is a preference."""

    templates: TemplatesRef = "default"
    """Template set: default, microworld, or a folder with pairwise.j2."""

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


class EvaluateSection(Section):
    """Answers of all models to held-out prompts."""

    sampling: Sampling = Sampling()
    """How the answers are drawn."""

    samples_per_prompt: int = Field(default=1, ge=1, le=64)
    """Answers per prompt and model."""

    exam_pairs: int = Field(default=200, ge=20, le=10_000)
    """Questions of the judge's exam on each set of wordings (microworld only)."""


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


class ShardsSection(Section):
    """Where the shards of labelling run."""

    runner: Literal["in_turn", "threads", "ray"] = "in_turn"
    """in_turn labels shard after shard; threads several at a time in this process, for a judge behind HTTP; ray
    sends them to the workers of a Ray cluster (charter[ray])."""

    at_once: int = Field(default=4, ge=1, le=10_000)
    """Shards under way at the same time, with threads and ray."""

    address: str | None = Field(default=None, pattern=r"^(auto|(ray://)?[^@:/\s]+:\d+)$")
    """A Ray cluster: ray://host:10001, host:6379, or auto for the one that this machine belongs to. None is started
    here: Ray would listen on every interface."""

    @model_validator(mode="after")
    def _address_is_rays(self) -> ShardsSection:
        if self.address is not None and self.runner != "ray":
            raise ValueError(f"address: is for runner ray, not for {self.runner}")
        if self.address is None and self.runner == "ray":
            raise ValueError("address: runner ray needs that of a cluster, such as ray://host:10001, or auto")
        return self


class LauncherSection(Section):
    """How training and sampling processes are started, and where labels are made."""

    processes: int = Field(default=1, ge=1, le=1024)
    """Processes on this machine, started by `accelerate launch` when more than one."""

    samplers: int = Field(default=1, ge=1, le=1024)
    """Processes that sample side by side, with one GPU each where there are GPUs."""

    accelerate_config: ConfigPath | None = None
    """An accelerate configuration (FSDP, several machines); `processes` is then its business."""

    shards: ShardsSection = ShardsSection()
    """Where the shards of labelling run."""
