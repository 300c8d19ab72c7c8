"""gloo in the place of NCCL between a trainer and vLLM's CPU server, so that all the rest is vLLM's own.

In vLLM's environment this is a plugin: `install` puts it where a server finds it, vLLM calls `register`. In the
tests' process `GlooGroup` stands in for `engines.in_process.nccl.NCCLGroup`. A group whose id does not begin with MARK
goes vLLM's own way.
"""

from __future__ import annotations

import shutil
import socket
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed

MARK = b"gloo:"


def install(folder: Path) -> None:
    """Into a folder that the server's PYTHONPATH will name."""
    shutil.copy(__file__, folder / "vllm_gloo.py")
    told = folder / "vllm_gloo-0.dist-info"
    told.mkdir()
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm-gloo\nVersion: 0\n")
    (told / "entry_points.txt").write_text("[vllm.general_plugins]\nvllm_gloo = vllm_gloo:register\n")


def open_group(identity: bytes, rank: int, size: int):
    """A group that has added up one number, as vLLM's NCCL groups do first."""
    port = int(identity.removeprefix(MARK).rstrip(b"\0"))
    patience = timedelta(seconds=60)
    store = torch.distributed.TCPStore("127.0.0.1", port, size, is_master=rank == 0, timeout=patience)
    group = torch.distributed.ProcessGroupGloo(store, rank, size, patience)
    one = torch.ones(1)
    group.allreduce([one]).wait()
    assert one.item() == size
    return group


class GlooGroup:
    """The trainer's side."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.id = (MARK + str(port).encode()).ljust(128, b"\0")

    def join(self, size: int) -> None:
        self.group = open_group(self.id, 0, size)

    def broadcast(self, tensors) -> None:
        for tensor in tensors:
            self.group.broadcast([tensor.detach().contiguous()]).wait()


class Receiver:
    """The server's side: what its engine asks of a communicator."""

    def __init__(self, group) -> None:
        self.group = group

    def broadcast(self, tensor, src, stream) -> None:
        assert src == 0
        self.group.broadcast([tensor]).wait()

    def destroy(self) -> None:
        self.group = None


def register() -> None:
    """vLLM calls this in each of its processes."""
    from vllm.distributed.weight_transfer import nccl_engine

    own = nccl_engine.worker_init_process_group

    def join(told, parallel):
        if not told.nccl_unique_id_bytes.startswith(MARK):
            return own(told, parallel)
        rank = told.rank_offset + parallel.rank
        return Receiver(open_group(told.nccl_unique_id_bytes, rank, told.world_size))

    nccl_engine.worker_init_process_group = join
    torch.cuda.current_stream = lambda device=None: None
