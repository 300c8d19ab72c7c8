"""A policy's weights to a vLLM server on other GPUs, by NCCL and without a file.

vLLM's receiver (vllm/distributed/weight_transfer/nccl_engine.py, 0.32) wants no vLLM on the trainer's side: it takes
an NCCL id over HTTP, its workers join a group whose rank 0 has that id, all add up one number, and from then on
each weight is one broadcast, in the order of a list of names that comes over HTTP too. torch's own bindings to NCCL do
rank 0's part; both sides must have the same NCCL.

Not yet run on GPUs: tests drive vLLM's receiver on a CPU, with gloo in the place of `NCCLGroup`.
"""

from __future__ import annotations

import base64
import queue
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

import torch
from torch.cuda import nccl

from training.errors import TrainingError

START_WITH = """--weight-transfer-config '{"backend": "nccl"}'"""
# As long as an HTTP request may take: loading a large model is a matter of seconds.
PATIENCE_S = 600.0


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


class NCCLTransfer:
    """Weights to the workers of one server; `call` asks it: (method, path, body) -> answer.

    Raises TrainingError when the server was not started for it, refuses, or cannot be joined.
    """

    def __init__(self, call: Callable[..., Any], group: NCCLGroup) -> None:
        self._call, self._group = call, group
        self._idle = False  # in the group, and not stuck in a transfer
        told = call("GET", "/server_info?config_format=json")["vllm_config"]
        backend = (told.get("weight_transfer_config") or {}).get("backend")
        if backend != "nccl":
            raise TrainingError(
                f"rollouts.transfer: nccl: the server's weight transfer is {backend}; start it with {START_WITH}"
            )
        size = 1 + call("GET", "/get_world_size")["world_size"]
        asked = {
            "nccl_unique_id_b64": base64.b64encode(group.id).decode(),
            "rank_offset": 1,
            "world_size": size,
            "packed": False,
        }
        self._together(
            lambda: call("POST", "/init_weight_transfer_engine", {"init_info": asked}),
            lambda: group.join(size),
        )

    def send(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Have the server load these, in this order."""
        told = {
            "names": list(weights),
            "dtype_names": [str(weight.dtype).removeprefix("torch.") for weight in weights.values()],
            "shapes": [list(weight.shape) for weight in weights.values()],
        }
        self._call("POST", "/start_weight_update")
        self._together(
            lambda: self._call("POST", "/update_weights", {"update_info": told}),
            lambda: self._group.broadcast(weights.values()),
        )
        self._call("POST", "/finish_weight_update")

    def close(self) -> None:
        """Let the server leave the group, unless it is stuck in it."""
        if self._idle:
            with suppress(TrainingError):
                self._call("POST", "/shutdown_weight_transfer_engine")

    def _together(self, *jobs: Callable[[], Any]) -> None:
        """Run the server's part and ours side by side. When one fails the other would wait for it for ever, so
        it is left to itself."""
        self._idle = False
        ended: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

        def run(job: Callable[[], Any]) -> None:
            try:
                job()
            except Exception as error:  # raised again by whoever waits
                ended.put(error)
            else:
                ended.put(None)

        for job in jobs:
            threading.Thread(target=run, args=(job,), daemon=True).start()
        for _ in jobs:
            try:
                error = ended.get(timeout=PATIENCE_S)
            except queue.Empty:
                error = RuntimeError(f"nothing moved for {PATIENCE_S:.0f} s")
            if isinstance(error, TrainingError):
                raise error
            if error is not None:
                raise TrainingError(
                    f"rollouts.transfer: nccl: {' '.join(str(error).split())}; the server needs GPUs of its own and "
                    "this environment's version of NCCL (NCCL_DEBUG=WARN tells more)"
                ) from error
        self._idle = True
