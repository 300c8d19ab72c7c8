"""The Prefect server and the deployments of prefect.yaml, on this machine."""

from __future__ import annotations

import importlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

from flows.errors import FlowError
from flows.runs.processes import die_with_parent

# Neither of Prefect's menus leads to the artifacts. From a deployment's page this is the same page's list of them.
_LINKS = "What runs of it publish: [artifacts](../../artifacts). People's verdicts: [audit](/charter/audit)."
LOCAL = ("127.0.0.1", "localhost", "::1")
_START_SECONDS = 300.0
_STOP_SECONDS = 15.0
_RESTARTS = 5


def read_deployments(path: Path) -> list[dict[str, Any]]:
    """The deployments of a prefect.yaml. Raises FlowError when there are none."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))["deployments"]
    except (OSError, yaml.YAMLError, TypeError, KeyError) as error:
        raise FlowError(f"{path}: holds no deployments: {' '.join(str(error).split())}") from error
    if not found:
        raise FlowError(f"{path}: holds no deployments")
    return list(found)


def free_port(wanted: int, host: str = "127.0.0.1") -> int:
    """`wanted` if nobody listens there; 0 stands for any free port. Raises FlowError when it is taken."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, wanted))
        except OSError as error:
            raise FlowError(
                f"--port: {host}:{wanted} is not free ({error.strerror}); give another port, or 0 for any"
            ) from error
        return int(probe.getsockname()[1])


@dataclass(kw_only=True)
class Server:
    """A Prefect server of ours. `url` is its API as this machine reaches it."""

    url: str
    log: Path
    command: list[str]
    env: dict[str, str]
    process: subprocess.Popen[bytes]
    stopping: threading.Event = field(default_factory=threading.Event)
    given_up: threading.Event = field(default_factory=threading.Event)

    def wait(self) -> None:
        """Until it answers. Raises FlowError when it does not."""
        deadline = time.monotonic() + _START_SECONDS
        # One client: making one loads certificates, which costs more than the server has to spare while it starts.
        with httpx.Client(timeout=2, trust_env=False) as client:
            while time.monotonic() < deadline:
                if self.given_up.is_set():
                    code = self.process.returncode
                    raise FlowError(f"the Prefect server ended with exit code {code} (log: {self.log})")
                try:
                    if client.get(f"{self.url}/health").status_code == 200:
                        return
                except httpx.HTTPError:
                    pass
                time.sleep(0.1)
        raise FlowError(f"the Prefect server did not answer within {_START_SECONDS:.0f} s (log: {self.log})")

    def keep_up(self) -> None:
        """Start it again when it is killed, a few times; runs wait for it and go on."""
        for left in reversed(range(_RESTARTS + 1)):
            while self.process.poll() is None:
                if self.stopping.wait(0.2):
                    return
            if self.stopping.is_set() or not left:
                break
            self.process = _start(self.command, self.env, self.log)
        self.given_up.set()

    def stop(self) -> None:
        """End it, by force where it does not end by itself."""
        self.stopping.set()
        self.process.terminate()
        try:
            self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextmanager
def server(*, port: int, log: Path, services: bool, host: str = "127.0.0.1") -> Iterator[Server]:
    """Start a Prefect server, which dies with this process, and stop it in the end. Killed, it is started again.

    With `services` it has the page and the scheduler; without, it only records runs. It listens on this machine
    alone unless `host` says otherwise.
    """
    url = f"http://{_reached(host)}:{port}/api"
    env = {
        **os.environ,
        "PREFECT_API_URL": url,
        "PREFECT__SERVER_FINAL": "1",
        # The page must talk to this server, not to the default port. Pages of other origins get nothing.
        "PREFECT_SERVER_UI_API_URL": url,
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": url.removesuffix("/api"),
        # Copies that we may change: ui_app takes the page's usage statistics out.
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "CHARTER_RUNS_DIR": str(log.parent.resolve().parent),
        "PREFECT_UI_STATIC_DIRECTORY": str(log.parent.resolve() / "pages"),
        # Kept in memory, a killed server would forget who holds a slot, and never give it back.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    }
    if not services:
        env["PREFECT__SERVER_EPHEMERAL"] = "1"
    command = ["-m", "uvicorn", "--factory", "flows.orchestration.ui_app:create_app", "--log-level", "error"]
    command += ["--host", host, "--port", str(port)]
    log.parent.mkdir(parents=True, exist_ok=True)
    made = Server(url=url, log=log, command=command, env=env, process=_start(command, env, log))
    threading.Thread(target=made.keep_up, name="server", daemon=True).start()
    try:
        yield made
    finally:
        made.stop()


def _start(command: list[str], env: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, *command],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )


def newer_pages() -> str:
    """Where Prefect's newer pages begin; empty where PREFECT_SERVER_UI_V2_ENABLED=false prefers the older ones."""
    from prefect.settings import get_current_settings

    return "/v2" if get_current_settings().server.ui.v2_enabled else ""


def _reached(host: str) -> str:
    """The name under which a browser reaches a server that listens on `host`."""
    name = socket.getfqdn() if host in ("0.0.0.0", "::") else host
    return f"[{name}]" if ":" in name else name


def load_flow(entrypoint: str) -> Any:
    """The flow that an entrypoint of prefect.yaml names (`flows/orchestration/rlaif.py:rlaif`)."""
    file, _, name = entrypoint.partition(":")
    return getattr(importlib.import_module(file.removesuffix(".py").replace("/", ".")), name)


async def serve(deployments: list[dict[str, Any]]) -> None:
    """Register deployments, limits and automations, then run what is asked for until interrupted.

    PREFECT_API_URL must point at the server.
    """
    from prefect.deployments.runner import EntrypointType
    from prefect.runner import Runner

    from flows.orchestration.events import create_automations
    from flows.orchestration.schedules import make_up_once, read_schedules, register
    from flows.orchestration.states import close_what_was_killed, create_limit

    # Schedules that a person switched on stay on while nobody serves them.
    runner = Runner(name="charter", pause_on_shutdown=False)
    memory = Path(os.environ["PREFECT_HOME"]) / "schedules.json"
    for entry, schedules in [(entry, read_schedules(entry)) for entry in deployments]:
        made = await load_flow(entry["entrypoint"]).to_deployment(
            name=entry["name"],
            description=f"{entry.get('description') or ''}\n\n{_LINKS}".strip(),
            tags=entry.get("tags"),
            parameters=entry.get("parameters"),
            concurrency_limit=entry.get("concurrency_limit"),
            schedules=schedules,
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        await register(runner, made, schedules, memory=memory)
    await create_limit()
    await create_automations()
    await close_what_was_killed()
    await make_up_once()
    await runner.start()
