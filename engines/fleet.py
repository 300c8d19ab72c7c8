"""The vLLM servers of one model that a run starts, watches and ends.

They load side by side, listen on 127.0.0.1 alone, and ask for a key that nobody else knows. One that dies at work is
started once more in its place; the second time it is left out, and when none is left whoever asks gets one line that
says why.
"""

from __future__ import annotations

import atexit
import os
import re
import secrets
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

from engines.errors import EngineError
from engines.pool import Pool
from engines.serve import VllmServer, serves_on_cpu, vllm_build
from engines.settings import VllmSettings

PATIENCE_S = 1800.0
"""How long servers may load: a large model comes from a slow disk, and is compiled."""
_POLL_S = 0.5
_TAKEN = re.compile(r"is taken|already in use", re.IGNORECASE)
Say = Callable[[str], None]


class Fleet:
    """Servers of one model. `start` returns when all of them answer; `close` ends them."""

    def __init__(self, model: Path, settings: VllmSettings, *, logs: Path, dtype: str | None = None) -> None:
        """`model` is a Hugging Face folder, `logs` the folder of the servers' logs, `dtype` as `VllmServer` takes it.

        Raises EngineError when the model, the environment or the GPUs are missing.
        """
        self._model, self._settings, self._logs, self._dtype = Path(model), settings, logs, dtype
        self.api_key = secrets.token_urlsafe(32)
        gpus = check_devices(settings)
        self._servers = [self._server(n, gpus) for n in range(settings.replicas)]
        self._pool: Pool | None = None
        self._closing = threading.Event()
        self._watchers: list[threading.Thread] = []
        self._lost: dict[str, str] = {}
        self._lock = threading.Lock()

    @property
    def urls(self) -> list[str]:
        """Base URLs of the servers."""
        return [server.url for server in self._servers]

    @property
    def served_name(self) -> str:
        """The name under which they serve the model."""
        return self._servers[0].model_name

    @cached_property
    def build(self) -> str:
        """vLLM and its version."""
        return vllm_build(self._settings.environment)

    def start(self, say: Say = lambda line: None) -> None:
        """Start all servers side by side; `say` hears how long they have been loading, about once a second.

        Raises EngineError, after ending the others, when one does not start.
        """
        atexit.register(self.close)
        began = time.monotonic()
        count = f"{len(self._servers)} vLLM servers" if len(self._servers) > 1 else "a vLLM server"
        try:
            with ThreadPoolExecutor(len(self._servers), thread_name_prefix="start") as executor:
                starts = [executor.submit(self._start, n) for n in range(len(self._servers))]
                try:
                    while not all(s.done() for s in starts):
                        ready = sum(s.done() for s in starts)
                        say(f"starting {count} of {self.served_name}, {ready} ready ({_since(began)})")
                        time.sleep(_POLL_S)
                        if any(s.done() and s.exception() for s in starts):
                            break
                    for ended in filter(lambda s: s.done(), starts):
                        ended.result()
                except BaseException:
                    self._closing.set()
                    self._stop_all()  # the other starts end with their servers
                    raise
        except BaseException:
            self.close()
            raise
        for number in range(len(self._servers)):
            watcher = threading.Thread(target=self._watch, args=(number,), daemon=True, name="vllm watch")
            self._watchers.append(watcher)
            watcher.start()

    def tell(self, pool: Pool) -> None:
        """The pool whose requests end when servers are gone for good."""
        with self._lock:
            self._pool = pool
            for url, problem in self._lost.items():
                pool.leave(url, problem)

    def close(self) -> None:
        """End the servers."""
        self._closing.set()
        self._stop_all()
        for watcher in self._watchers:
            watcher.join()
        self._stop_all()  # one may have been starting again
        self._watchers = []
        atexit.unregister(self.close)

    def _server(self, number: int, gpus: list[str], *, port: int = 0, again: str = "") -> VllmServer:
        settings, size = self._settings, self._settings.tensor_parallel
        arguments: list[str] = []
        if size > 1:
            arguments += ["--tensor-parallel-size", str(size)]
        if settings.memory_share is not None:
            arguments += ["--gpu-memory-utilization", str(settings.memory_share)]
        if settings.max_model_len is not None:
            arguments += ["--max-model-len", str(settings.max_model_len)]
        variables = {}
        if gpus:
            variables["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[number * size : (number + 1) * size])
        elif settings.replicas > 1 and hasattr(os, "sched_getaffinity"):
            cores = sorted(os.sched_getaffinity(0))
            if mine := cores[number :: settings.replicas]:
                variables["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(map(str, mine))
        return VllmServer(
            self._model,
            port=port,
            environment=settings.environment,
            dtype=self._dtype,
            log=self._logs / f"vllm-{self._model.resolve().name}-{number}{again}.log",
            arguments=[*arguments, *settings.vllm_arguments],
            api_key=self.api_key,
            variables=variables,
        )

    def _start(self, number: int) -> None:
        """Start a server, at another port where somebody took its own in the meantime."""
        try:
            self._try(number)
        except EngineError as error:
            if self._closing.is_set() or not _TAKEN.search(str(error)):
                raise
            self._again(number, port=0)

    def _try(self, number: int) -> None:
        server = self._servers[number]
        server.start()
        server.wait_until_ready(PATIENCE_S)

    def _again(self, number: int, *, port: int | None = None) -> None:
        """The same server, by default at the same place, with a log of its own: the first says why it was needed."""
        old = self._servers[number]
        old.stop()
        gpus = visible_gpus() if not serves_on_cpu(self._settings.environment) else []
        self._servers[number] = self._server(
            number, gpus, port=old.port if port is None else port, again="-again"
        )
        self._try(number)

    def _watch(self, number: int) -> None:
        restarts = 0
        while not self._closing.wait(_POLL_S):
            if self._servers[number].is_running():
                continue
            server = self._servers[number]
            problem = f"a vLLM server of {server.model_name} ended: {server.reason()} (log: {server.log})"
            if restarts == 0 and not self._closing.is_set():
                restarts += 1
                try:
                    self._again(number)
                    continue
                except EngineError as error:
                    problem = f"{problem}; started again: {error}"
            if not self._closing.is_set():
                self._lose(server.url, problem)
            return

    def _lose(self, url: str, problem: str) -> None:
        with self._lock:
            self._lost[url] = problem
            if self._pool is not None:
                self._pool.leave(url, problem)

    def _stop_all(self) -> None:
        for server in self._servers:
            server.interrupt()
        for server in self._servers:
            server.stop()


def check_devices(settings: VllmSettings) -> list[str]:
    """The GPUs that the servers will take; none for vLLM's CPU build. Raises EngineError where there are too few."""
    environment = settings.environment
    if not (environment / "bin" / "python").is_file():
        raise EngineError(f"no vLLM environment in {environment}: make one with `make vllm`")
    wanted = settings.replicas * settings.tensor_parallel
    if serves_on_cpu(environment):
        if settings.tensor_parallel > 1:
            raise EngineError(
                f"tensor_parallel: {settings.tensor_parallel}: vLLM's build here is for the CPU"
            )
        return []
    gpus = visible_gpus()
    if wanted > len(gpus):
        raise EngineError(
            f"replicas ({settings.replicas}) of tensor_parallel ({settings.tensor_parallel}) need {wanted} GPUs, "
            f"this machine shows {len(gpus)}"
        )
    return gpus[:wanted]


def visible_gpus() -> list[str]:
    """GPUs of this machine as CUDA_VISIBLE_DEVICES names them."""
    if (named := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [gpu.strip() for gpu in named.split(",") if gpu.strip() and gpu.strip() != "-1"]
    if (program := shutil.which("nvidia-smi")) is None:
        return []
    listed = subprocess.run([program, "--list-gpus"], capture_output=True, text=True, check=False).stdout
    return [str(n) for n, _ in enumerate(line for line in listed.splitlines() if line.startswith("GPU"))]


def _since(began: float) -> str:
    return f"{time.monotonic() - began:.0f} s"
