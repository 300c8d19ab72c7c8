"""The devices and processes of a run, through accelerate: one CPU, one GPU, or `accelerate launch`."""

from __future__ import annotations

import os
import random
import warnings
from typing import Any

import torch
import torch.distributed
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from torch.distributed.fsdp import fully_shard

from training.config.base import TrainConfig
from training.errors import TrainingError


class Runtime:
    """One process's view of the run: its device, its rank, and what it does together with the others.

    Raises TrainingError when several processes were launched that do not know of each other.
    """

    def __init__(self, config: TrainConfig) -> None:
        AcceleratorState._reset_state()  # an earlier run in this process may have had another precision
        self.accelerator = Accelerator(
            mixed_precision="bf16" if config.bf16 else "no",
            # Buffers are constants here (rotary frequencies); exchanging them costs a round trip a step. Gradients
            # that did not lie in the buckets they are exchanged in would be there twice.
            kwargs_handlers=[
                DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
            ],
        )
        self.device: torch.device = self.accelerator.device
        self.rank: int = self.accelerator.process_index
        self.world: int = self.accelerator.num_processes
        self.is_main: bool = self.accelerator.is_main_process
        launched = int(os.environ.get("WORLD_SIZE", "1"))
        if launched != self.world:
            raise TrainingError(
                f"{launched} processes were launched and {self.world} found each other; "
                "on CPUs set ACCELERATE_USE_CPU=true"
            )
        # `accelerate launch --use_fsdp` sets this.
        self.sharded = self.world > 1 and os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"
        if self.sharded:
            # Otherwise transformers leaves all weights empty except on the first rank, and new heads, adapters and
            # references could not be made before the model is sharded.
            os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"
        # Ranks draw different dropout and samples; whatever must be equal is seeded by itself.
        random.seed(config.seed + self.rank)
        torch.manual_seed(config.seed + self.rank)

    def prepare(self, module: torch.nn.Module) -> Any:
        """Move a module to the device, wrap it for this kind of run, and compute under autocast if bf16."""
        if self.sharded:
            return self._shard(module)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # broadcast_buffers; accelerate knows no successor
            return self.accelerator.prepare_model(module)

    def _shard(self, module: torch.nn.Module) -> torch.nn.Module:
        # torch's own fully_shard on each block and on the whole, which accelerate would only do together with
        # an optimiser of its own making. It moves one block after the other to the device: the whole model may be
        # too large for it.
        blocks = {name for m in module.modules() for name in getattr(m, "_no_split_modules", None) or ()}
        for inner in list(module.modules()):
            if type(inner).__name__ in blocks:
                fully_shard(inner)
        fully_shard(module)
        module.forward = self.accelerator.autocast()(module.forward)
        return module

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
