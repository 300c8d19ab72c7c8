"""The devices and processes of a run, through accelerate: one CPU, one GPU, or `accelerate launch`."""

from __future__ import annotations

import random
from typing import Any

import torch
import torch.distributed
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState

from training.config import TrainConfig


class Runtime:
    """One process's view of the run: its device, its rank, and what it does together with the others."""

    def __init__(self, config: TrainConfig) -> None:
        AcceleratorState._reset_state()  # an earlier run in this process may have had another precision
        self.accelerator = Accelerator(
            mixed_precision="bf16" if config.precision == "bf16" else "no",
            # Buffers are constants here (rotary frequencies); exchanging them costs a round trip a step.
            kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
        )
        self.device: torch.device = self.accelerator.device
        self.rank: int = self.accelerator.process_index
        self.world: int = self.accelerator.num_processes
        self.is_main: bool = self.accelerator.is_main_process
        # Ranks draw different dropout and samples; whatever must be equal is seeded by itself.
        random.seed(config.seed + self.rank)
        torch.manual_seed(config.seed + self.rank)

    def prepare(self, module: torch.nn.Module) -> Any:
        """Move a module to the device, wrap it for this kind of run, and compute under autocast if bf16."""
        return self.accelerator.prepare_model(module)

    def sum(self, values: list[float]) -> list[float]:
        """Sums over all processes."""
        if self.world == 1:
            return values
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(total)
        return total.tolist()

    def gather(self, value: Any) -> list[Any]:
        """One value of each process, in rank order, on every process."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        torch.distributed.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        self.accelerator.wait_for_everyone()
