"""Optimisers and learning-rate schedules."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from training.config.base import OptimizerConfig
from training.errors import TrainingError
from training.run.muon import Muon

# The modules between hidden states and outputs: Muon's source keeps them, and embeddings, on AdamW.
HEADS = frozenset({"lm_head", "embed_out", "score", "classifier", "value_head"})


class Optimizers:
    """AdamW, and Muon beside it where asked, behind one optimiser's interface."""

    def __init__(self, members: dict[str, torch.optim.Optimizer]) -> None:
        self.members = members

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for member in self.members.values() for group in member.param_groups]

    def step(self, scale: float = 1.0) -> None:
        """Update with each group's peak learning rate times `scale`, the schedule's value."""
        for group in self.param_groups:
            group["lr"] = group["peak_lr"] * scale
        for member in self.members.values():
            member.step()

    def zero_grad(self) -> None:
        for member in self.members.values():
            member.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        return {name: member.state_dict() for name, member in self.members.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, member in self.members.items():
            member.load_state_dict(state[name])


def build_optimizer(model: torch.nn.Module, config: OptimizerConfig) -> Optimizers:
    """The optimiser over the trainable parameters of `model`; matrices alone are decayed.

    Raises TrainingError when nothing is trainable, and for Muon under FSDP.
    """
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    inner, matrices, others = [], [], []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        is_head = bool(HEADS & set(name.split(".")))
        if parameter.ndim == 2 and id(parameter) not in embeddings and not is_head:
            inner.append(parameter)
        elif parameter.ndim >= 2:
            matrices.append(parameter)
        else:
            others.append(parameter)
    if not (inner or matrices or others):
        raise TrainingError("the model has no trainable parameters")
    members: dict[str, torch.optim.Optimizer] = {}
    if config.name == "muon" and inner:
        if any(isinstance(parameter, DTensor) for parameter in inner):
            raise TrainingError("optimizer.name: muon needs whole matrices, and FSDP shards them; use adamw")
        lr, decay = config.muon_learning_rate, config.weight_decay
        members["muon"] = Muon([{"params": inner, "peak_lr": lr}], lr=lr, weight_decay=decay)
    else:
        matrices = inner + matrices
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay, "peak_lr": config.learning_rate},
        {"params": others, "weight_decay": 0.0, "peak_lr": config.learning_rate},
    ]
    members["adamw"] = torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.learning_rate,
        betas=config.betas,
        eps=config.eps,
        fused=True,
    )
    return Optimizers(members)


def schedule(step: int, total: int, config: OptimizerConfig) -> float:
    """The learning rate of optimiser step `step` (from 0) of `total`, as a share of its peak."""
    warmup = math.ceil(config.warmup * total)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if config.schedule == "constant":
        return 1.0
    progress = (step - warmup) / max(1, total - warmup)
    shape = 1 - progress if config.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
    return config.final_ratio + (1 - config.final_ratio) * shape


def clip_gradients(model: torch.nn.Module, max_norm: float) -> float:
    """Scale the gradients to at most this global 2-norm; returns the norm before, which may be non-finite."""
    norm = torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], max_norm)
    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
