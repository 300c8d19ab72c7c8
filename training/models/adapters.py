"""A model made trainable as its config asks: low-rank adapters, gradient checkpointing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from training.errors import TrainingError

if TYPE_CHECKING:
    from training.config.base import LoraConfig, TrainConfig


def add_lora(model: Any, config: LoraConfig, *, task: str, seed: int) -> Any:
    """Wrap a model in trainable low-rank adapters; its base weights are frozen.

    `task` is CAUSAL_LM or SEQ_CLS. The reference policy is then the same model inside
    `with model.disable_adapter():`. Adapters of one `seed` start alike, in whichever process.

    Raises TrainingError when peft is not installed or no module matches.
    """
    try:
        import peft
    except ImportError as error:
        raise TrainingError("lora needs the peft library: pip install 'charter[lora]'") from error
    modules = config.target_modules
    settings = peft.LoraConfig(
        r=config.r,
        lora_alpha=config.alpha,  # type: ignore[arg-type]
        lora_dropout=config.dropout,
        target_modules=modules if isinstance(modules, str) else list(modules),
        task_type=task,
    )
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return peft.get_peft_model(model, settings)
    except ValueError as error:
        raise TrainingError(f"lora.target_modules: {' '.join(str(error).split())}") from error


def check_lora(config: TrainConfig, *, task: str) -> None:
    """Fit the adapters to a model without memory, before the real one loads. Raises TrainingError."""
    if not config.lora:
        return
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    architecture: Any = AutoModelForCausalLM if task == "CAUSAL_LM" else AutoModelForSequenceClassification
    try:
        settings = AutoConfig.from_pretrained(config.model, trust_remote_code=False)
        with torch.device("meta"):
            model = architecture.from_config(settings)
    except Exception as error:  # whatever a damaged config raises
        reason = " ".join(str(error).split())
        raise TrainingError(f"model {config.model}: cannot be loaded: {reason}") from error
    add_lora(model, config.lora, task=task, seed=config.seed)


def make_trainable(model: Any, config: TrainConfig, *, task: str) -> Any:
    """Adapters and gradient checkpointing as the config asks, in training mode."""
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if config.lora:
        model = add_lora(model, config.lora, task=task, seed=config.seed)
    return model.train()
