"""Muon: momentum orthogonalised by Newton-Schulz, for the inner matrices of a network.

Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks". Matrices of one shape are
orthogonalised in one batched product, which matters for small models.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch

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
