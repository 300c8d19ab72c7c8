"""What a run will need, worked out before the model loads: steps, tokens, and memory per device.

The estimate of activations was fitted to what decoder layers keep for the backward pass (a test compares them);
treat it as good to a quarter. A run that cannot fit is refused before anything is loaded.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from training.config import SupervisedConfig, TrainConfig
from training.errors import TrainingError
from training.runtime import Runtime

_GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class ModelSize:
    """The shape of a model, read from its config; `adapter` counts the parameters of LoRA."""

    parameters: int
    adapter: int
    layers: int
    hidden: int
    feed_forward: int
    vocabulary: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Bytes per device, and the amount of work."""

    parameters: int
    steps: int
    tokens: int
    weights: float
    gradients: float
    optimizer: float
    activations: float
    free: float

    @property
    def needed(self) -> float:
        return self.weights + self.gradients + self.optimizer + self.activations

    def __str__(self) -> str:
        parts = ("weights", "gradients", "optimizer", "activations")
        memory = ", ".join(f"{part} {getattr(self, part) / _GIB:.2f}" for part in parts)
        return (
            f"{self.parameters / 1e6:,.1f}M parameters, {self.steps:,} steps, {self.tokens:,} tokens; "
            f"about {self.needed / _GIB:.2f} GiB per device ({memory}) of {self.free / _GIB:.1f} free"
        )


def model_size(config: TrainConfig) -> ModelSize:
    """Counted on a model without memory, from its config alone. Raises TrainingError."""
    from transformers import AutoConfig, AutoModel

    try:
        settings = AutoConfig.from_pretrained(config.model, trust_remote_code=False)
        with torch.device("meta"):
            model = AutoModel.from_config(settings)
    except Exception as error:  # whatever a damaged config raises
        raise TrainingError(
            f"model {config.model}: cannot be loaded: {' '.join(str(error).split())}"
        ) from error
    text = settings.get_text_config()
    parameters = sum(p.numel() for p in model.parameters())
    if not getattr(settings, "tie_word_embeddings", True):
        parameters += text.vocab_size * text.hidden_size
    linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
    rank = config.lora.r if config.lora else 0
    return ModelSize(
        parameters=parameters,
        adapter=rank * sum(m.in_features + m.out_features for m in linear),
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        feed_forward=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        vocabulary=text.vocab_size,
    )


def activation_bytes(size: ModelSize, tokens: int, *, bf16: bool, checkpointing: bool) -> float:
    """Bytes kept for the backward pass by the layers of a decoder over `tokens` tokens."""
    # Attention, norms and residuals keep about 47 bytes per hidden unit, part of them always in float32; a gated
    # feed-forward layer keeps four values per inner unit.
    layer = 47 * size.hidden + (8 if bf16 else 16) * size.feed_forward
    kept = size.layers * 4 * size.hidden + layer if checkpointing else size.layers * layer
    return tokens * (kept + 12 * size.hidden)


def plan_supervised(
    config: SupervisedConfig, runtime: Runtime, items: Sequence[Any], *, head_tokens: Callable[[Any], int]
) -> Plan:
    """The plan of a pass over a data set; `head_tokens(item)` counts an item's tokens that need logits."""
    size = model_size(config)
    bf16 = config.precision == "bf16"
    lengths = [item.tree.tokens("packed") for item in items]
    mean = sum(lengths) / len(lengths)
    share = math.ceil(mean * min(config.batch_size, len(items)) / runtime.world)
    tokens = max(max(lengths), min(config.micro_batch_tokens, share))
    logits = sum(map(head_tokens, items)) / sum(lengths) * tokens * size.vocabulary
    trained = size.adapter if config.lora else size.parameters
    shards = runtime.world if runtime.sharded else 1
    states = 2 if config.optimizer.name == "adamw" else 1
    held = 2 if config.lora and bf16 else 4
    # Autocast keeps a bfloat16 copy of each float32 matrix while a graph is alive.
    copies = 2 if bf16 and not config.lora else 0
    steps = config.epochs * math.ceil(len(items) / config.batch_size)
    total = min(steps, config.max_steps or steps)
    return Plan(
        parameters=size.parameters,
        steps=total,
        tokens=round(mean * config.batch_size * total) if total < steps else sum(lengths) * config.epochs,
        weights=held * size.parameters / shards + copies * size.parameters + 4 * size.adapter,
        gradients=4 * trained / shards,
        optimizer=4 * states * trained / shards,
        # Logits in both precisions, their log-softmax and its gradient.
        activations=activation_bytes(size, tokens, bf16=bf16, checkpointing=config.gradient_checkpointing)
        + (14 if bf16 else 12) * logits,
        free=free_memory(runtime),
    )


def announce(plan: Plan, runtime: Runtime) -> None:
    """Print the plan on stderr. Raises TrainingError when it cannot fit."""
    if plan.needed > plan.free:
        raise TrainingError(
            f"does not fit: {plan}; lower micro_batch_tokens or max_length, or set gradient_checkpointing, lora or FSDP"
        )
    if runtime.is_main:
        print(f"plan: {plan}", file=sys.stderr)


def free_memory(runtime: Runtime) -> float:
    """Bytes free on this process's device; processes on one CPU share its memory."""
    if runtime.device.type == "cuda":
        return torch.cuda.mem_get_info(runtime.device)[0]
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            fields = dict(line.split(":") for line in file)
        return int(fields["MemAvailable"].split()[0]) * 1024 / runtime.world
    except (OSError, KeyError):
        return math.inf
