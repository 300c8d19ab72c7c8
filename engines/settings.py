"""Where texts come from, and how vLLM is started: settings that configurations, forms and the library share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

_REFUSED = {
    "--api-key": "a key is made for every start",
    "--host": "servers listen on this machine only",
    "--port": "a free one is taken",
    "--trust-remote-code": "no code of a model's folder is run",
    "--tensor-parallel-size": "say tensor_parallel",
    "--served-model-name": "the run names it",
}
Endpoint = Annotated[str, Field(pattern=r"^https?://[^@\s]+$")]


class VllmSettings(BaseModel):
    """vLLM servers of one model, started here on free ports of 127.0.0.1 and ended when their work is done."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    replicas: int = Field(
        default=1, ge=1, le=64, description="Servers of the model, side by side (kind vllm)."
    )
    tensor_parallel: int = Field(
        default=1, ge=1, le=64, description="GPUs that share one copy of the model (kind vllm)."
    )
    memory_share: float | None = Field(
        default=None,
        gt=0,
        le=1,
        allow_inf_nan=False,
        description="Share of a GPU's memory that a server takes; by default vLLM's own, 0.9 (kind vllm).",
    )
    max_model_len: int | None = Field(
        default=None,
        ge=16,
        description="Longest prompt and answer in tokens that a server holds; by default the model's own (kind vllm).",
    )
    vllm_arguments: tuple[str, ...] = Field(
        default=(), description="Further arguments of vLLM's server, such as --enforce-eager (kind vllm)."
    )
    vllm_environment: Path | None = Field(
        default=None,
        description="vLLM's own Python environment; by default .venv-vllm in the working directory, which `make vllm` "
        "makes (kind vllm).",
    )

    @field_validator("vllm_arguments")
    @classmethod
    def _nothing_that_opens_doors(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            name = value.partition("=")[0]
            if name in _REFUSED:
                raise ValueError(f"{name} is not for vllm_arguments: {_REFUSED[name]}")
        return values

    @property
    def environment(self) -> Path:
        """vLLM's environment."""
        return self.vllm_environment or Path(".venv-vllm")

    def changed(self) -> list[str]:
        """Names of these settings that are not at their defaults."""
        own = VllmSettings.model_fields
        return [name for name, field in own.items() if getattr(self, name) != field.default]


class SamplingSettings(VllmSettings):
    """Which engine draws a model's texts."""

    kind: Literal["in_process", "vllm", "endpoints"] = Field(
        default="in_process",
        description="in_process draws here; vllm starts vLLM servers for each model and ends them; endpoints are vLLM "
        "servers of your own, which are told to load each model's weights.",
    )
    endpoints: tuple[Endpoint, ...] = Field(
        default=(),
        description="Base URLs of your own servers, such as http://127.0.0.1:8000/v1 (kind endpoints).",
    )
    api_key_env: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="Name of the environment variable that holds the endpoints' key.",
    )
    timeout_s: float = Field(
        default=120.0,
        gt=0,
        le=3600,
        description="Seconds that a server may take for one request; in proportion more where it has many tokens.",
    )

    @model_validator(mode="after")
    def _fields_fit_the_kind(self) -> Self:
        if self.kind == "endpoints" and not self.endpoints:
            raise ValueError("endpoints: kind endpoints needs at least one, such as http://127.0.0.1:8000/v1")
        if self.kind != "endpoints" and (self.endpoints or self.api_key_env):
            raise ValueError(f"endpoints and api_key_env belong to kind endpoints, not to {self.kind}")
        if self.kind != "vllm" and (names := self.changed()):
            raise ValueError(f"{names[0]}: belongs to kind vllm, not to {self.kind}")
        return self
