"""A policy's weights to a vLLM server, and answers from it: rollouts whose model is replaced between steps.

The server reads the new weights from a folder that both sides see, or gets them by NCCL. It must have been started
from a copy made by `training.models.export`, with VLLM_SERVER_DEV_MODE=1, on an address that only trusted processes
reach: that mode lets a client call into the server's workers.

vLLM's receiver (vllm/distributed/weight_transfer/nccl_engine.py, 0.32) wants no vLLM on the trainer's side: it takes
an NCCL id over HTTP, its workers join a group whose rank 0 has that id, all add up one number, and from then on
each weight is one broadcast, in the order of a list of names that comes over HTTP too.
"""

from __future__ import annotations

import base64
import queue
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from engines.client import Client
from engines.errors import EngineError
from engines.protocol import Completion, Sampling
from engines.remote import RemoteEngine

START_WITH = """--weight-transfer-config '{"backend": "nccl"}'"""
# As long as an HTTP request may take: loading a large model is a matter of seconds.
PATIENCE_S = 600.0


class Group(Protocol):
    """Rank 0 of a group that tensors are broadcast in: engines.in_process.nccl.NCCLGroup."""

    id: bytes

    def join(self, size: int) -> None:
        """Wait for the other ranks. Raises RuntimeError when they do not come."""
        ...

    def broadcast(self, tensors: Iterable[Any]) -> None:
        """Send these, and wait until they are sent. Raises RuntimeError when that fails."""
        ...


class Exporter(Protocol):
    """How a policy is written down for a server: training.models.export."""

    def save_untied(self, model: Any, tokenizer: Any, directory: Path) -> None:
        """Save `model` with an output head of its own."""
        ...

    def served_weights(self, model: Any) -> Mapping[str, Any]:
        """The weights of the same by their names in its files."""
        ...


class ServedPolicy:
    """Rollouts from a vLLM server. `weights_dir` is where `update_weights` leaves the policy for the server to read;
    with a `group` it goes by NCCL."""

    def __init__(
        self,
        base_url: str,
        tokenizer: Any,
        *,
        exporter: Exporter,
        weights_dir: Path,
        stop_ids: Sequence[int],
        decode: Callable[[Sequence[int]], str],
        group: Group | None = None,
        concurrency: int = 64,
        timeout_s: float = 600.0,
    ) -> None:
        """Raises EngineError when the server cannot be reached, answers with an error or serves no model."""
        url = base_url.rstrip("/").removesuffix("/v1") + "/v1"
        self.tokenizer, self.weights_dir = tokenizer, Path(weights_dir)
        self._exporter = exporter
        self._engine = RemoteEngine(
            [url],
            stop_ids=stop_ids,
            decode=decode,
            concurrency=concurrency,
            timeout_s=timeout_s,
            retry_s=30.0,
        )
        self._client = Client(url, timeout_s=timeout_s, connections=4)
        try:
            _ = self._engine.served
            self._transfer = None if group is None else NCCLTransfer(self._client.control, group)
        except EngineError:
            self.close()
            raise

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, *, seed: int, rows: Sequence[int]
    ) -> list[Completion]:
        """One completion per encoded prompt, in order. Raises EngineError when the server fails."""
        return self._engine.generate(prompts, sampling, seed=seed, rows=rows)

    def update_weights(self, model: Any) -> None:
        """Have the server load `model`, which has no adapter; cached prefixes are dropped."""
        if self._transfer is not None:
            self._transfer.send(self._exporter.served_weights(model))
        else:
            self._exporter.save_untied(model, self.tokenizer, self.weights_dir)
            where = {"weights_path": str(self.weights_dir.resolve())}
            self._client.control("POST", "/collective_rpc", {"method": "reload_weights", "kwargs": where})
        self._client.control("POST", "/reset_prefix_cache")

    def close(self) -> None:
        """Leaves the server's group and closes the connections."""
        if transfer := getattr(self, "_transfer", None):
            transfer.close()
        self._engine.close()
        self._client.close()


class NCCLTransfer:
    """Weights to the workers of one server; `call` asks it: (method, path, body) -> answer.

    Raises EngineError when the server was not started for it, refuses, or cannot be joined.
    """

    def __init__(self, call: Callable[..., Any], group: Group) -> None:
        self._call, self._group = call, group
        self._idle = False  # in the group, and not stuck in a transfer
        info = call("GET", "/server_info?config_format=json")["vllm_config"]
        backend = (info.get("weight_transfer_config") or {}).get("backend")
        if backend != "nccl":
            raise EngineError(
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

    def send(self, weights: Mapping[str, Any]) -> None:
        """Have the server load these, in this order."""
        info = {
            "names": list(weights),
            "dtype_names": [str(weight.dtype).removeprefix("torch.") for weight in weights.values()],
            "shapes": [list(weight.shape) for weight in weights.values()],
        }
        self._call("POST", "/start_weight_update")
        self._together(
            lambda: self._call("POST", "/update_weights", {"update_info": info}),
            lambda: self._group.broadcast(weights.values()),
        )
        self._call("POST", "/finish_weight_update")

    def close(self) -> None:
        """Let the server leave the group, unless it is stuck in it."""
        if self._idle:
            with suppress(EngineError):
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
            if isinstance(error, EngineError):
                raise error
            if error is not None:
                raise EngineError(
                    f"rollouts.transfer: nccl: {' '.join(str(error).split())}; the server needs GPUs of its own and "
                    "this environment's version of NCCL (NCCL_DEBUG=WARN tells more)"
                ) from error
        self._idle = True
