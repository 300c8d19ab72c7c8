"""The Prefect server and the deployments of prefect.yaml, on this machine."""

from __future__ import annotations

import importlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from flows.errors import FlowError
from flows.processes import die_with_parent

_START_SECONDS = 300.0


def read_deployments(path: Path) -> list[dict[str, Any]]:
    """The deployments of a prefect.yaml. Raises FlowError when there are none."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))["deployments"]
    except (OSError, yaml.YAMLError, TypeError, KeyError) as error:
        raise FlowError(f"{path}: holds no deployments: {' '.join(str(error).split())}") from error
    if not found:
        raise FlowError(f"{path}: holds no deployments")
    return list(found)


def free_port(wanted: int) -> int:
    """`wanted` if nobody listens there; 0 stands for any free port. Raises FlowError when it is taken."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError as error:
            raise FlowError(
                f"--port: {wanted} is taken ({error.strerror}); give another one, or 0 for any"
            ) from error
        return int(probe.getsockname()[1])


@dataclass(frozen=True, kw_only=True)
class Server:
    """A Prefect server of ours that is coming up."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def wait(self) -> None:
        """Until it answers. Raises FlowError when it does not."""
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                code = self.process.returncode
                raise FlowError(f"the Prefect server ended with exit code {code} (log: {self.log})")
            try:
                if httpx.get(f"{self.url}/health", timeout=2).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.1)
        raise FlowError(f"the Prefect server did not answer within {_START_SECONDS:.0f} s (log: {self.log})")


@contextmanager
def server(*, port: int, log: Path, services: bool) -> Iterator[Server]:
    """Start a Prefect server on 127.0.0.1, which dies with this process, and stop it in the end.

    With `services` it has the page and the scheduler; without, it only records runs.
    """
    url = f"http://127.0.0.1:{port}/api"
    env = {
        **os.environ,
        "PREFECT_API_URL": url,
        "PREFECT__SERVER_FINAL": "1",
        # The page must talk to this server, not to the default port.
        "PREFECT_SERVER_UI_API_URL": url,
    }
    if not services:
        env["PREFECT__SERVER_EPHEMERAL"] = "1"
    command = ["-m", "uvicorn", "--factory", "prefect.server.api.server:create_app", "--log-level", "error"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, *command],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
    try:
        yield Server(url=url, process=process, log=log)
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def serve(deployments: list[dict[str, Any]]) -> None:
    """Serve deployments until interrupted. PREFECT_API_URL must point at the server."""
    from prefect import serve as serve_all
    from prefect.schedules import Schedule

    made = []
    for entry in deployments:
        file, _, name = entry["entrypoint"].partition(":")
        flow = getattr(importlib.import_module(file.removesuffix(".py").replace("/", ".")), name)
        made.append(
            flow.to_deployment(
                name=entry["name"],
                description=entry.get("description"),
                tags=entry.get("tags"),
                parameters=entry.get("parameters"),
                concurrency_limit=entry.get("concurrency_limit"),
                schedules=[Schedule(**schedule) for schedule in entry.get("schedules", [])],
            )
        )
    serve_all(*made, pause_on_shutdown=False, print_starting_message=False)
