"""A vLLM server of our own: start it in its environment, wait until it answers, say what is wrong, stop it.

vLLM lives in an environment of its own (`make vllm`): its dependencies and Prefect's exclude each other. It listens
on this machine only, and ends with this process whatever happens to that (`engines.watchdog`). With VLLM_API_KEY in the
environment it asks for that key.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import IO, Self

from engines import watchdog
from engines.client import Busy, Client
from engines.errors import EngineError, RequestFailed

ENVIRONMENT = Path(".venv-vllm")
HOST = "127.0.0.1"
STOP_S = 20.0
KEY_ENV = "VLLM_API_KEY"
# Compiling takes minutes and gains nothing at the size of a model that a CPU serves. Blocks of 128 tokens, the default,
# are longer than what the two orders of a short pair share; the prefix cache keeps whole blocks only. As many tokens a
# step as vLLM's offline engine takes on a CPU: its server's default is half of that.
_CPU_ARGUMENTS = ("--enforce-eager", "--block-size", "32", "--max-num-batched-tokens", "4096")
# vLLM keeps a core for its front end, which batches hardly need: of few cores that is too much.
_FEW_CORES = 8
# Prefixes of vLLM's log lines, which would only push the reason off the screen.
_PREFIX = re.compile(
    r"^(\(\S+ pid=\d+\)\s*)?((INFO|WARNING|ERROR|DEBUG)\s+[\d-]+\s+[\d:.]+\s+\[[^\]]*\]\s*)?"
)
_CHATTER = re.compile(r"^(\(\S+ pid=\d+\)\s*)?(INFO|WARNING|DEBUG)\b")
_REASON = re.compile(r"(\b\w*(Error|Exception)\b: .+|^error: .+)")


class VllmServer:
    """One vLLM process. As a context manager it is started and ready inside, and gone afterwards."""

    def __init__(
        self,
        model: str | Path,
        *,
        port: int = 0,
        environment: Path = ENVIRONMENT,
        dtype: str | None = None,
        log: Path | None = None,
        arguments: Sequence[str] = (),
        api_key: str | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """`model` is a folder in Hugging Face format, served under its name. `port` 0 takes a free one.

        `dtype` is vLLM's; by default float32 on the CPU and the model's own on a GPU. `arguments` go to vLLM
        as they are, `log` takes its output, `variables` are its environment beside ours.

        Raises EngineError when the model or the environment is missing, or when a key stands among the arguments.
        """
        if any(argument.partition("=")[0] == "--api-key" for argument in arguments):
            raise EngineError(f"--api-key: every user of this machine could read it; set {KEY_ENV} instead")
        self._model = Path(model).resolve()
        if not (self._model / "config.json").is_file():
            raise EngineError(f"no model in {model}: expected a Hugging Face folder with config.json")
        self._python = Path(environment).absolute() / "bin" / "python"
        if not self._python.is_file():
            raise EngineError(f"no vLLM environment in {environment}: make one with `make vllm`")
        self._on_cpu = serves_on_cpu(Path(environment))
        self._dtype = dtype or ("float32" if self._on_cpu else "auto")
        self._arguments, self._variables = list(arguments), dict(variables or {})
        self._api_key = api_key or os.environ.get(KEY_ENV)
        self._pipe: int | None = None
        self.log = log or Path(tempfile.mkdtemp(prefix="charter-vllm-")) / "vllm.log"
        self._output: IO[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.port = port or _free_port()

    @property
    def url(self) -> str:
        """The base URL that clients take."""
        return f"http://{HOST}:{self.port}/v1"

    @property
    def model_name(self) -> str:
        """The name under which the model is served: that of its folder."""
        return self._model.name

    @property
    def pid(self) -> int | None:
        """Process id of the server while it runs."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Starts the process and returns at once. Raises EngineError when the port is taken."""
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, self.port))
            except OSError as error:
                raise EngineError(f"port {self.port} is taken: give another with --port") from error
        command = [str(self._python), "-m", "vllm.entrypoints.openai.api_server"]
        command += ["--model", str(self._model), "--served-model-name", self.model_name]
        command += ["--host", HOST, "--port", str(self.port), "--dtype", self._dtype]
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"} | self._variables
        if self._api_key:
            environment[KEY_ENV] = self._api_key  # no argument: every user of this machine may read those
        if self._on_cpu:
            command += _CPU_ARGUMENTS
            environment.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
            if len(cores := os.sched_getaffinity(0)) <= _FEW_CORES:
                environment.setdefault("VLLM_CPU_OMP_THREADS_BIND", ",".join(map(str, sorted(cores))))
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._output = self.log.open("wb")
        ours, self._pipe = os.pipe()
        keeper = [sys.executable, str(Path(watchdog.__file__).resolve()), str(os.getpid()), str(ours)]
        try:
            # A session of its own: an interrupt at the terminal reaches us first, and we stop it in order.
            self._process = subprocess.Popen(
                keeper + command + self._arguments,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(ours,),
            )
        finally:
            os.close(ours)

    def wait_until_ready(
        self, timeout_s: float = 600.0, *, on_progress: Callable[[float], None] | None = None
    ) -> None:
        """Returns when the server answers. `on_progress` is called with the seconds waited.

        Raises EngineError, with vLLM's own reason and the place of its log, when it ended or takes too long.
        """
        started = time.monotonic()
        while (waited := time.monotonic() - started) < timeout_s:
            if not self.is_running():
                raise EngineError(f"vLLM ended while starting: {self.reason()} (log: {self.log})")
            if self._answers(timeout_s - waited):
                return
            if on_progress is not None:
                on_progress(waited)
            time.sleep(0.5)
        self.stop()
        raise EngineError(f"vLLM was not ready after {timeout_s:.0f} s (log: {self.log})")

    def _answers(self, patience: float) -> bool:
        """Whether the server is up; then it must also complete a token, which is when some models fail."""
        client = Client(
            self.url,
            api_key=self._api_key,
            timeout_s=max(1.0, patience),
            connections=1,
        )
        try:
            if client.status("/health") != 200:
                return False
            client.post("/completions", {"model": self.model_name, "prompt": [0], "max_tokens": 1})
        except (Busy, RequestFailed, EngineError) as problem:
            raise EngineError(
                f"vLLM cannot run {self.model_name}: {problem}: {self.reason()} (log: {self.log})"
            ) from problem
        finally:
            client.close()
        return True

    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def wait(self) -> int:
        """Waits for the process to end by itself; returns its exit status."""
        assert self._process is not None, "the server was started"
        return self._process.wait()

    def interrupt(self) -> None:
        """Asks the server to end and returns at once; `stop` waits for it."""
        if (process := self._process) is not None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)

    def stop(self) -> None:
        """Asks the server to end and, if it does not, ends it with everything it started."""
        if self._process is None:
            return
        for kind, patience in ((signal.SIGTERM, STOP_S), (signal.SIGKILL, STOP_S)):
            try:
                os.killpg(self._process.pid, kind)
            except ProcessLookupError:
                break
            try:
                self._process.wait(patience)
            except subprocess.TimeoutExpired:
                continue
            if not _group_lives(self._process.pid, patience):
                break
        self._process.wait()
        self._process = None
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None
        if self._output is not None:
            self._output.close()

    def reason(self) -> str:
        """Why the server ended, in one line of vLLM's own words."""
        log = self.log.read_text(errors="replace").splitlines()
        lines = [_PREFIX.sub("", line).strip() for line in log if not _CHATTER.match(line)]
        # The first error is the cause, the later ones its wake. Pydantic says what is wrong on the next line.
        for line, following in pairwise([*lines, ""]):
            if _REASON.search(line):
                return (following if "validation error" in line and following else line)[:300]
        return next((line for line in reversed(lines) if line), "it said nothing")[:300]

    def __enter__(self) -> Self:
        self.start()
        try:
            self.wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def serves_on_cpu(environment: Path) -> bool:
    """Whether an environment's vLLM is the build for CPUs."""
    return any(environment.glob("lib/python*/site-packages/vllm_cpu-*.dist-info"))


def vllm_build(environment: Path) -> str:
    """vLLM's version in an environment, as its server tells it; "vllm" where there is none."""
    for folder in environment.glob("lib/python*/site-packages/vllm*-*.dist-info"):
        name, _, version = folder.name.removesuffix(".dist-info").partition("-")
        if name in ("vllm", "vllm_cpu"):
            return f"vllm {version}"
    return "vllm"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def _group_lives(group: int, patience: float) -> bool:
    """Whether processes of a session are left after `patience` seconds."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except (ProcessLookupError, PermissionError):
            return False
        time.sleep(0.1)
    return True
