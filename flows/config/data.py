"""The sections of what goes in, what is sampled, and where it runs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from engines.settings import Endpoint, SamplingSettings, VllmSettings
from flows.config.fields import ConfigPath, ModelRef, Section, TemplatesRef


class CriticEndpoints(Section):
    """A critic on servers of your own."""

    kind: Literal["openai"] = "openai"
    """Servers with OpenAI's HTTP surface."""

    endpoints: tuple[Endpoint, ...] = Field(min_length=1)
    """Base URLs of the servers, such as http://127.0.0.1:8000/v1; requests are spread over them."""

    model: str | None = Field(default=None, min_length=1)
    """The name under which they serve the model; may be left out where they serve only one."""

    revision: str = Field(min_length=1, max_length=200)
    """Which weights they serve: nobody can see it from here, and texts are reused only while it stays the same."""

    tokenizer: ConfigPath | None = None
    """Folder of the model's tokenizer. With it, prompts travel as token ids, and nothing in a text can become a control
    token; without it, as conversations."""

    api_key_env: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Name of the environment variable that holds the key, for servers that ask for one."""

    timeout_s: float = Field(default=120.0, gt=0, le=3600)
    """Seconds that a server may take for one request; in proportion more where it has many tokens."""


def _critic_kind(value: Any) -> str:
    return "endpoints" if isinstance(value, dict | CriticEndpoints) else "folder"


CriticRef = Annotated[
    Annotated[ModelRef, Tag("folder")] | Annotated[CriticEndpoints, Tag("endpoints")],
    Discriminator(_critic_kind),
]


class ModelsSection(Section):
    """The models that the run starts from."""

    base: ModelRef
    """The pretrained model: a Hugging Face folder with safetensors weights, or a hub id."""

    critic: CriticRef | None = None
    """Criticises and revises: a folder, a hub id, or servers of your own. Without one, the helpful-only model does."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number format in which models sample."""


class SamplingSection(SamplingSettings, Section):
    """Which engine draws first answers, critiques, revisions, pairs and the evaluation's answers."""

    vllm_environment: ConfigPath | None = None
    """vLLM's own Python environment (kind vllm); by default .venv-vllm in the working directory."""

    def vllm(self) -> VllmSettings:
        """What vLLM is started with."""
        return VllmSettings(**{name: getattr(self, name) for name in VllmSettings.model_fields})


class PromptFile(Section):
    """A file of prompts, in any of the formats of docs/data.md."""

    path: ConfigPath
    """The file. Of whole conversations, what stands before the last answer is asked."""

    limit: int | None = Field(default=None, ge=1)
    """Take this many distinct prompts from the beginning, or from where `skip` ends."""

    skip: int = Field(default=0, ge=0)
    """Leave out this many distinct prompts at the beginning: a file's rest may be held out."""


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
    """Template set: default, microworld, small (for small models), or a folder with critique.j2 and revision.j2."""

    keep_truncated: bool = False
    """Train on answers that were cut off at max_new_tokens too."""

    keep_unchanged: bool = True
    """Train on a last revision that is the first answer word for word too: right where the critique may find no fault,
    wrong for a critic that only repeats what it is shown."""

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


class EvaluateSection(Section):
    """Answers of all models to held-out prompts."""

    sampling: Sampling = Sampling()
    """How the answers are drawn."""

    samples_per_prompt: int = Field(default=1, ge=1, le=64)
    """Answers per prompt and model."""

    exam_pairs: int = Field(default=200, ge=20, le=10_000)
    """Questions of the judge's exam on each set of wordings (microworld only)."""


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
    """Processes that sample side by side, with one GPU each where there are GPUs; for sampling in process."""

    accelerate_config: ConfigPath | None = None
    """An accelerate configuration (FSDP, several machines); `processes` is then its business."""

    shards: ShardsSection = ShardsSection()
    """Where the shards of labelling run."""
