"""Trainable weights and optimiser state as plain CPU tensors, whole even where FSDP shards them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor, distribute_tensor

from training.errors import TrainingError
from training.models.load import save_model
from training.run.directory import Run, TrainResult
from training.run.optim import Optimizers
from training.run.runtime import Runtime


def weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The trainable parameters by name. Every process must call this; under FSDP it gathers the shards."""
    return {name: _whole(p.detach()) for name, p in module.named_parameters() if p.requires_grad}


def load_weights(module: torch.nn.Module, saved: dict[str, torch.Tensor]) -> None:
    """Put back what `weights` took. Raises TrainingError when the names or shapes are of another model."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            if name not in saved or saved[name].shape != parameter.shape:
                raise TrainingError(f"the checkpoint does not fit this model: {name} is missing or reshaped")
            parameter.copy_(_like(saved[name], parameter))


def whole_state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A sharded model's state dict with whole CPU tensors; weights that are tied stay one tensor."""
    seen: dict[int, torch.Tensor] = {}
    state = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen[id(tensor)] = _whole(tensor.detach())
        state[name] = seen[id(tensor)]
    return state


def whole_adapted(model: Any) -> Any:
    """A copy of a sharded model with adapters, whole and on the CPU. Every process must call this."""
    import peft

    state = whole_state(model)
    inner = model.get_base_model()
    config = copy.deepcopy(inner.config)
    config._attn_implementation = "sdpa"
    with torch.device("meta"):
        found = peft.get_peft_model(type(inner)(config), model.active_peft_config)
    found.load_state_dict(state, assign=True)
    whole = found.get_base_model()
    whole.tie_weights()
    if hasattr(inner, "generation_config"):
        whole.generation_config = inner.generation_config
    return found


def optimizer_state(optimizer: Optimizers) -> dict[str, Any]:
    """The optimiser's state with whole tensors."""
    return _map(optimizer.state_dict(), _whole)


def load_optimizer(module: torch.nn.Module, optimizer: Optimizers, saved: dict[str, Any]) -> None:
    """Put back what `optimizer_state` took, sharded as the parameters are."""
    sharded = any(isinstance(p, DTensor) for p in module.parameters())
    for name, member in optimizer.members.items():
        state = saved[name]
        if sharded:
            parameters = [p for group in member.param_groups for p in group["params"]]
            for index, parameter in enumerate(parameters):
                entry = state["state"].get(index, {})
                state["state"][index] = {
                    k: _like(v, parameter)
                    if isinstance(v, torch.Tensor) and v.shape == parameter.shape
                    else v
                    for k, v in entry.items()
                }
        member.load_state_dict(state)


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.full_tensor().cpu() if isinstance(tensor, DTensor) else tensor.cpu()


def _like(tensor: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    if isinstance(parameter, DTensor):
        return distribute_tensor(tensor.to(parameter.device), parameter.device_mesh, parameter.placements)
    return tensor


def _map(tree: Any, change: Any) -> Any:
    if isinstance(tree, torch.Tensor):
        return change(tree)
    if isinstance(tree, dict):
        return {key: _map(value, change) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [_map(value, change) for value in tree]
    return tree


def export(
    run: Run, runtime: Runtime, model: Any, tokenizer: Any, metrics: Mapping[str, float], *, steps: int
) -> TrainResult:
    """Save `model`, adapters merged in where `lora.merge` says so. Every process must call this."""
    lora, state = run.config.lora, None
    if lora and lora.merge:
        model = (whole_adapted(model) if runtime.sharded else model).merge_and_unload()
    elif runtime.sharded:
        # An adapter is saved alone.
        state = weights(model) if lora else whole_state(model)

    def save(directory: Path, card: str) -> None:
        save_model(model, tokenizer, directory, card=card, state=state)

    if runtime.is_main:
        run.finish(save, metrics, steps=steps)
    runtime.barrier()
    return TrainResult(output_dir=run.config.output_dir, metrics=dict(metrics))
