"""Optimisers and learning-rate schedules."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from training.config.base import OptimizerConfig
from training.errors import TrainingError

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


# The source's quintic: steepest at zero, and singular values not near zero end in about [0.7, 1.2].
_A, _B, _C = 3.4445, -4.7750, 2.0315


class Muon(torch.optim.Optimizer):
    """Muon for two-dimensional parameters; use AdamW for embeddings, heads, norms and biases."""

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        iterations: int = 5,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "iterations": iterations}
        super().__init__(params, defaults)
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.ndim != 2:
                    raise ValueError(
                        f"Muon takes matrices, got a parameter of shape {tuple(parameter.shape)}"
                    )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update with Nesterov momentum; steps are scaled by sqrt(max(1, rows / columns))."""
        assert closure is None
        for group in self.param_groups:
            by_shape: dict[tuple, list[torch.Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[tuple(parameter.shape)].append(parameter)
            for (rows, columns), parameters in by_shape.items():
                grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
                buffers = [self._buffer(parameter) for parameter in parameters]
                torch._foreach_lerp_(buffers, grads, 1 - group["momentum"])
                updates = torch._foreach_lerp(grads, buffers, group["momentum"])
                directions = orthogonalize(torch.stack(tuple(updates)), iterations=group["iterations"])
                scale = -group["lr"] * max(1.0, rows / columns) ** 0.5
                if group["weight_decay"]:
                    torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(
                    parameters, list(directions.to(parameters[0].dtype).unbind(0)), alpha=scale
                )

    def _buffer(self, parameter: torch.Tensor) -> torch.Tensor:
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        return state["momentum"]


def orthogonalize(matrices_NRC: torch.Tensor, *, iterations: int = 5) -> torch.Tensor:
    """Approximately replace each matrix's singular values by one, in bfloat16; shape (N, rows, columns)."""
    x = matrices_NRC.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    return x.mT if tall else x
