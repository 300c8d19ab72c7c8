"""What a reinforcement learning run will need per device, worked out before a model loads.

Beside what `training.run.memory` counts for the policy: a frozen reference, PPO's value model with its optimiser, the
reward models, and the KV cache of the rollouts. All of them lie in memory together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from common.chat import encode_prompt, naming
from common.rows import Prompt
from training.config.rewards import EnsembleTerm, ModelTerm
from training.config.rl import PPOConfig, RLConfig
from training.models import cpu_attention
from training.run.memory import (
    ModelSize,
    Plan,
    activation_bytes,
    free_memory,
    model_size,
    size_of,
    trained_bytes,
)
from training.run.runtime import Runtime


def plan_rl(config: RLConfig, runtime: Runtime, tokenizer: Any, prompts: Sequence[Prompt]) -> Plan:
    """The plan of a whole run; its tokens are the most that can be sampled. Raises TrainingError."""
    size = model_size(config)
    lengths = []
    for prompt in prompts:
        with naming(prompt.place or prompt.id):
            lengths.append(len(encode_prompt(tokenizer, prompt.prompt)))
    mean = sum(lengths) / len(lengths) + config.max_new_tokens
    weights, gradients, optimizer = trained_bytes(size, config, config.optimizer, runtime)
    rank = config.lora.r if config.lora else 0
    rewards = [size_of(path, rank=rank) for path in _reward_models(config)]
    value = 0.0
    if isinstance(config, PPOConfig):
        trunk = rewards[0] if config.value.start_from == "reward_model" else size
        value = sum(trained_bytes(trunk, config, config.value.optimizer, runtime))
    return Plan(
        parameters=size.parameters,
        steps=config.steps,
        tokens=config.steps * config.batch_size * config.max_new_tokens,
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        activations=_activations(
            config, size, runtime, mean=mean, longest=max(lengths) + config.max_new_tokens
        ),
        frozen=4 * sum(reward.parameters for reward in rewards) + _reference(config, size, runtime),
        value_model=value,
        cache=cache_bytes(config, size, runtime, longest=max(lengths) + config.max_new_tokens),
        free=free_memory(runtime),
    )


def cache_bytes(config: RLConfig, size: ModelSize, runtime: Runtime, *, longest: int) -> float:
    """Bytes of the keys and values of all slots, each as long as the longest prompt and answer; a server keeps its
    own."""
    if config.rollouts.kind == "vllm":
        return 0.0
    slots = min(config.rollouts.batch_size, math.ceil(config.batch_size / runtime.world))
    return 2 * (2 if config.bf16 else 4) * size.layers * slots * longest * size.key_value


def _activations(config: RLConfig, size: ModelSize, runtime: Runtime, *, mean: float, longest: int) -> float:
    """Of the policy's update; the value model's comes after it and needs less, having no logits."""
    responses = math.ceil(config.batch_size / config.minibatches / runtime.world)
    tokens = max(longest, min(config.micro_batch_tokens, math.ceil(mean * responses)))
    bf16 = config.bf16
    # Logits in both precisions, their log-softmax and its gradient.
    logits = (14 if bf16 else 12) * size.vocabulary * tokens * config.max_new_tokens / mean
    length, probabilities = round(mean), 0.0
    if runtime.device.type == "cpu" and size.layout == "packed":
        probabilities = cpu_attention.kept(length, length, causal=True) / length
    checkpointing = config.gradient_checkpointing
    layers = activation_bytes(
        size, tokens, bf16=bf16, checkpointing=checkpointing, probabilities=probabilities
    )
    return layers + logits


def _reference(config: RLConfig, size: ModelSize, runtime: Runtime) -> float:
    """The reference, which under LoRA is the policy itself, and FSDP's whole copy of the policy to sample from."""
    copy = 4 * size.parameters if runtime.sharded else 0
    if config.lora:
        return copy
    return copy + 4 * (size_of(config.reference).parameters if config.reference else size.parameters)


def _reward_models(config: RLConfig) -> list[str]:
    """Of the reward, and early stopping's gold."""
    paths: list[str] = []
    for term in (*config.terms, *([config.early_stopping.gold] if config.early_stopping else [])):
        if isinstance(term, ModelTerm):
            paths.append(term.path)
        elif isinstance(term, EnsembleTerm):
            paths += term.paths
    return paths
