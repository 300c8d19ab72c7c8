"""What a run will need, worked out before the model loads: steps, tokens, and memory per device.

The estimate of activations was fitted to what decoder layers keep for the backward pass (a test compares them);
treat it as good to a quarter. A run that cannot fit is refused before anything is loaded.
"""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from training.config.base import OptimizerConfig, SupervisedConfig, TrainConfig, in_bfloat16
from training.data.packing import Layout, attention_areas, batch_tokens
from training.errors import TrainingError
from training.models import cpu_attention
from training.run.runtime import Runtime

_GIB = 2**30
_PARTS = ("weights", "gradients", "optimizer", "activations", "frozen", "value_model", "cache")


@dataclass(frozen=True, kw_only=True)
class ModelSize:
    """The shape of a model, read from its config; `adapter` counts the parameters of LoRA, `key_value` the units of
    a token's keys (and of its values) in one layer. `layout` is what `training.models.attention` will choose, as
    far as the architecture tells."""

    parameters: int
    adapter: int
    key_value: int
    heads: int
    layers: int
    hidden: int
    feed_forward: int
    vocabulary: int
    layout: Layout


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Bytes per device, and the amount of work. `frozen` are models that only answer (a reference, reward models),
    `value_model` is PPO's with all that training it takes, `cache` the keys and values of sampling."""

    parameters: int
    steps: int
    tokens: int
    weights: float
    gradients: float
    optimizer: float
    activations: float
    frozen: float = 0.0
    value_model: float = 0.0
    cache: float = 0.0
    free: float

    @property
    def needed(self) -> float:
        return sum(getattr(self, part) for part in _PARTS)

    def __str__(self) -> str:
        named = ((part.replace("_", " "), getattr(self, part)) for part in _PARTS)
        memory = ", ".join(f"{name} {size / _GIB:.2f}" for name, size in named if size)
        return (
            f"{self.parameters / 1e6:,.1f}M parameters, {self.steps:,} steps, {self.tokens:,} tokens; "
            f"about {self.needed / _GIB:.2f} GiB per device ({memory}) of {self.free / _GIB:.1f} free"
        )


def model_size(config: TrainConfig) -> ModelSize:
    """The size of the model that a config trains. Raises TrainingError."""
    return size_of(config.model, rank=config.lora.r if config.lora else 0)


def size_of(ref: str, *, rank: int = 0) -> ModelSize:
    """Counted on a model without memory, from its config alone. Raises TrainingError."""
    from transformers import AutoConfig, AutoModel

    try:
        settings = AutoConfig.from_pretrained(ref, trust_remote_code=False)
        with torch.device("meta"):
            model = AutoModel.from_config(settings)
    except Exception as error:  # whatever a damaged config raises
        raise TrainingError(f"model {ref}: cannot be loaded: {' '.join(str(error).split())}") from error
    text = settings.get_text_config()
    parameters = sum(p.numel() for p in model.parameters())
    if not getattr(settings, "tie_word_embeddings", True):
        parameters += text.vocab_size * text.hidden_size
    linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
    heads = getattr(text, "num_attention_heads", None) or 1  # recurrent layers have none
    width = getattr(text, "head_dim", None) or text.hidden_size // heads
    return ModelSize(
        parameters=parameters,
        adapter=rank * sum(m.in_features + m.out_features for m in linear),
        key_value=(getattr(text, "num_key_value_heads", None) or heads) * width,
        heads=heads,
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        feed_forward=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        vocabulary=text.vocab_size,
        layout=_layout(model, text),
    )


def _layout(model: Any, settings: Any) -> Layout:
    # Encoders, recurrent layers and models with an attention of their own get rows.
    causal = {module.is_causal for module in model.modules() if hasattr(module, "is_causal")} == {True}
    chosen = getattr(model, "_supports_attention_backend", False)
    return "packed" if causal and chosen and not getattr(settings, "attn_logit_softcapping", None) else "rows"


def trained_bytes(
    size: ModelSize, config: TrainConfig, optimizer: OptimizerConfig, runtime: Runtime
) -> tuple[float, float, float]:
    """Bytes of a trained model's weights, gradients and optimiser state on one device."""
    bf16 = in_bfloat16(config.precision)
    trained = size.adapter if config.lora else size.parameters
    shards = runtime.world if runtime.sharded else 1
    states = 2 if optimizer.name == "adamw" else 1
    held = 2 if config.lora and bf16 else 4
    # Autocast keeps a bfloat16 copy of each float32 matrix while a graph is alive.
    copies = 2 if bf16 and not config.lora else 0
    weights = held * size.parameters / shards + copies * size.parameters + 4 * size.adapter
    return weights, 4 * trained / shards, 4 * states * trained / shards


def activation_bytes(
    size: ModelSize, tokens: int, *, bf16: bool, checkpointing: bool, probabilities: float = 0.0
) -> float:
    """Bytes kept for the backward pass by the layers of a decoder over `tokens` tokens.

    `probabilities` is how many each head keeps per token (`training.models.cpu_attention`; other kernels keep none).
    """
    # Attention, norms and residuals keep about 47 bytes per hidden unit, part of them always in float32; a gated
    # feed-forward layer keeps four values per inner unit.
    layer = 47 * size.hidden + (8 if bf16 else 16) * size.feed_forward + 4 * size.heads * probabilities
    kept = size.layers * 4 * size.hidden + layer if checkpointing else size.layers * layer
    return tokens * (kept + 12 * size.hidden)


def plan_supervised(
    config: SupervisedConfig,
    runtime: Runtime,
    items: Sequence[Any],
    *,
    head_tokens: Callable[[Any], int],
    reference: bool = False,
) -> Plan:
    """The plan of a pass over a data set; `head_tokens(item)` counts an item's tokens that need logits. With
    `reference` the whole model computes log-probabilities before it is sharded."""
    size = model_size(config)
    bf16 = in_bfloat16(config.precision)
    lengths = [batch_tokens([item.tree], size.layout) for item in items]
    on_cpu = runtime.device.type == "cpu"
    probabilities = 0.0
    if on_cpu and size.layout == "packed":
        areas = [area for item in items for area in attention_areas(item.tree)]
        probabilities = sum(cpu_attention.kept(q, k, causal=causal) for q, k, causal in areas) / sum(lengths)
    mean = sum(lengths) / len(lengths)
    share = math.ceil(mean * min(config.batch_size, len(items)) / runtime.world)
    tokens = max(max(lengths), min(config.micro_batch_tokens, share))
    logits = sum(map(head_tokens, items)) / sum(lengths) * tokens * size.vocabulary
    activations = activation_bytes(
        size, tokens, bf16=bf16, checkpointing=config.gradient_checkpointing, probabilities=probabilities
    )
    # Logits in both precisions, their log-softmax and its gradient.
    activations += (14 if bf16 else 12) * logits
    weights, gradients, optimizer = trained_bytes(size, config, config.optimizer, runtime)
    if runtime.sharded and (reference or on_cpu):
        # The whole model lies there first, alone.
        whole = (2 if config.lora and bf16 else 4) * size.parameters
        weights = max(weights, whole - gradients - optimizer - activations)
    steps = config.epochs * math.ceil(len(items) / config.batch_size)
    total = min(steps, config.max_steps or steps)
    return Plan(
        parameters=size.parameters,
        steps=total,
        tokens=round(mean * config.batch_size * total) if total < steps else sum(lengths) * config.epochs,
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        activations=activations,
        free=free_memory(runtime),
    )


def announce(plan: Plan, runtime: Runtime) -> None:
    """Print the plan on stderr. Raises TrainingError when it cannot fit."""
    if plan.needed > plan.free:
        lower = "rollouts.batch_size or max_new_tokens" if plan.cache or plan.frozen else "max_length"
        raise TrainingError(
            f"does not fit: {plan}; lower micro_batch_tokens, {lower}, or set gradient_checkpointing, lora or FSDP"
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


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_MMAP_THRESHOLD = 32 * 1024 * 1024  # glibc's limit on 64-bit systems


def keep_freed_memory() -> None:
    """Tell glibc's allocator not to return memory to the system; does nothing elsewhere.

    Otherwise every large temporary is mapped, zeroed by the kernel page by page, and unmapped: on CPU that
    costs a small model's training step up to a quarter of its time.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
