"""Rank 0 of an NCCL group, for weights that go to a vLLM server without a file (see engines.update).

torch's own bindings to NCCL do rank 0's part; both sides must have the same NCCL. Not yet run on GPUs: tests drive
vLLM's receiver on a CPU, with gloo in the place of `NCCLGroup`.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch.cuda import nccl


class NCCLGroup:
    """Rank 0 of an NCCL group, on this process's GPU: all that cannot run without one."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.id: bytes = nccl.unique_id()

    def join(self, size: int) -> None:
        """Wait for the other ranks. Raises RuntimeError where NCCL does."""
        with torch.cuda.device(self.device):
            self._communicator = nccl.init_rank(size, self.id, 0)
            # vLLM's workers begin with this sum.
            nccl.all_reduce([torch.zeros(1, device=self.device)], comms=[self._communicator])
            torch.cuda.current_stream().synchronize()

    def broadcast(self, tensors: Iterable[torch.Tensor]) -> None:
        """Send these, and wait until they are sent. Raises RuntimeError where NCCL does."""
        with torch.cuda.device(self.device):
            for tensor in tensors:
                nccl.broadcast([tensor.detach().to(self.device).contiguous()], comms=[self._communicator])
            torch.cuda.current_stream().synchronize()
