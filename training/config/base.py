"""Training configs: the fields that every trainer shares, and reading them from YAML with clear errors.

Imports no torch, so that a config can be checked before anything heavy is loaded.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from common.files import write_atomically
from training.config.yaml import describe, read_yaml
from training.errors import TrainingError


@cache
def fast_bfloat16() -> bool:
    """Whether bfloat16 saves time here: on GPUs that have it, and on CPUs that multiply it in tiles (AMX).

    A CPU without instructions of its own emulates it, many times slower than float32.
    """
    import torch

    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    info = Path("/proc/cpuinfo")
    return info.is_file() and " amx_bf16" in info.read_text()


def in_bfloat16(precision: str) -> bool:
    """What a config's `precision` (auto, float32 or bf16) means on this machine."""
    return precision == "bf16" or (precision == "auto" and fast_bfloat16())


class Strict(BaseModel):
    """A frozen model that refuses unknown fields; each field's docstring is its description."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), use_attribute_docstrings=True
    )


class OptimizerConfig(Strict):
    """The optimiser and its learning-rate schedule."""

    name: Literal["adamw", "muon"] = "adamw"
    """adamw, or muon for the inner weight matrices with AdamW for everything else."""

    learning_rate: float = Field(default=1e-5, gt=0, le=1)
    """Peak learning rate of AdamW."""

    muon_learning_rate: float = Field(default=0.02, gt=0, le=1)
    """Peak learning rate of Muon's matrices."""

    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's decay rates, each at least 0 and below 1."""

    eps: float = Field(default=1e-8, gt=0, le=1e-2)
    """AdamW's denominator term."""

    weight_decay: float = Field(default=0.0, ge=0, le=1)
    """Decoupled decay, on matrices only."""

    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """Shape of the learning rate after the warm-up."""

    warmup: float = Field(default=0.03, ge=0, le=0.9)
    """Share of all steps with a rising learning rate."""

    final_ratio: float = Field(default=0.1, ge=0, le=1)
    """What the learning rate falls to after the last step, over its peak (linear and cosine)."""

    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are clipped to this global 2-norm."""

    @model_validator(mode="after")
    def _betas_in_range(self) -> OptimizerConfig:
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas {self.betas} must each be at least 0 and below 1")
        return self


class LoraConfig(Strict):
    """Low-rank adapters (Hu et al. 2021, arXiv 2106.09685) through the `peft` library."""

    r: int = Field(default=16, ge=1, le=1024)
    """Rank."""

    alpha: float = Field(default=32, gt=0)
    """The adapter's output is scaled by alpha / r."""

    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on the adapter's input."""

    target_modules: str | tuple[str, ...] = "all-linear"
    """Names of the modules to adapt, or all-linear."""

    merge: bool = True
    """Save the merged model; false saves the adapter alone."""


class TrainConfig(Strict):
    """The fields that every trainer shares."""

    model: str = Field(min_length=1)
    """A Hugging Face model directory, or a hub id."""

    output_dir: Path
    """Where the model, the metrics and the checkpoints go."""

    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seed of new heads, data order, dropout and sampling."""

    precision: Literal["auto", "float32", "bf16"] = "auto"
    """bf16 computes under autocast, with weights and optimiser state in float32; auto does where the machine has
    instructions for it, and is float32 elsewhere."""

    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, a third more compute."""

    optimizer: OptimizerConfig = OptimizerConfig()
    """Optimiser and schedule."""

    lora: LoraConfig | None = None
    """Train low-rank adapters instead of all weights."""

    checkpoint_every: int = Field(default=200, ge=0)
    """Optimiser steps between checkpoints, and one after the last; 0 writes one only when stopped by a signal."""

    keep_checkpoints: int = Field(default=2, ge=1, le=100)
    """How many checkpoints to keep."""

    tensorboard: bool = False
    """Write the metrics as TensorBoard events too."""

    metadata: dict[str, str | int | float | bool | None] = {}
    """Free facts for the model card: constitution version, ledger digest, exam result."""

    @property
    def bf16(self) -> bool:
        """Whether to compute in bfloat16 on this machine."""
        return in_bfloat16(self.precision)


class SupervisedConfig(TrainConfig):
    """The fields of trainers that pass over a data set (SFT, reward model, DPO and relatives)."""

    data: tuple[Path, ...] = Field(min_length=1)
    """JSONL (also .gz) or Parquet files."""

    epochs: int = Field(default=1, ge=1, le=1000)
    """Passes over the data."""

    max_steps: int | None = Field(default=None, ge=1)
    """Stop after this many optimiser steps."""

    batch_size: int = Field(default=32, ge=1)
    """Examples per optimiser step, over all processes and accumulated micro-batches."""

    micro_batch_tokens: int = Field(default=16384, ge=16)
    """Most tokens (padding included) per forward pass on one device; more of them accumulate."""

    max_length: int = Field(default=2048, ge=8, le=1_048_576)
    """Longest example in tokens."""

    divergence_factor: float = Field(default=5.0, gt=1)
    """Stop when the loss is this many times the first step's for three steps in a row."""

    held_out: float = Field(default=0.0, ge=0, le=0.5)
    """Share of the examples kept out of training and used for evaluation."""

    eval_every: int | None = Field(default=None, ge=1)
    """Optimiser steps between evaluations; by default one after each epoch."""

    patience: int | None = Field(default=None, ge=1)
    """Stop after this many evaluations without a better loss, and keep the best weights."""

    @model_validator(mode="after")
    def _evaluation_needs_held_out(self) -> SupervisedConfig:
        for name in ("patience", "eval_every"):
            if getattr(self, name) is not None and not self.held_out:
                raise ValueError(f"{name} needs held_out above 0")
        return self


C = TypeVar("C", bound=BaseModel)
_RENAMED = {"brake": "early_stopping"}


def load_config(path: str | os.PathLike[str], config_class: type[C] | Mapping[str, type[C]]) -> C:
    """Read a YAML file as `config_class`; of several, as the one that its `method:` names.

    Raises TrainingError: one line naming file, line, field, value and what is allowed.
    """
    values, lines = read_yaml(Path(path))
    if isinstance(config_class, Mapping):
        method = values.pop("method", None)
        if method not in config_class:
            place = f"{path}:{lines[('method',)]}" if ("method",) in lines else str(path)
            raise TrainingError(f"{place}: method: {method!r} is not one of {', '.join(config_class)}")
        config_class = config_class[method]
    for old, new in _RENAMED.items():
        if old in values and old not in config_class.model_fields and new in config_class.model_fields:
            values[new] = values.pop(old)
            place = f"{path}:{lines[(old,)]}"
            lines |= {(new, *at[1:]): line for at, line in lines.items() if at[:1] == (old,)}
            print(
                f"{place}: {old} is called {new} now; the old name is read for one more version",
                file=sys.stderr,
            )
    try:
        return config_class.model_validate(values)
    except ValidationError as error:
        places = {at: f"{path}:{line}" for at, line in lines.items()}
        message = describe(error, values, config_class, path=str(path), places=places)
        raise TrainingError(message) from error


def save_config(config: BaseModel, path: Path) -> None:
    """Write the resolved config as YAML, atomically."""
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    write_atomically(path, text)
