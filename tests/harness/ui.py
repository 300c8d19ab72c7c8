"""`charter ui` as a process, and what tests ask of its API."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

ROOT = Path(__file__).parents[2]
CHARTER = [sys.executable, "-c", "from flows.cli import main; main()"]
ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
AUTH = "someone:a-secret-of-the-test"


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 120) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.2)
    return found


@dataclass
class UI:
    """A running `charter ui` and its API."""

    folder: Path
    process: subprocess.Popen[bytes]
    page: str

    def call(self, method: str, path: str, /, **body: Any) -> Any:
        """What the API answers to `body`, or to a list given as `rows`. Raises httpx.HTTPStatusError where it refuses.

        A server whose database is busy says so with 503, and Prefect's own clients ask again; so does this.
        """
        for _ in range(5):
            answer = httpx.request(
                method,
                f"{self.page}/api{path}",
                json=body.get("rows", body) if method == "POST" else None,
                auth=tuple(AUTH.split(":")),
                timeout=30,
                trust_env=False,
            )
            if answer.status_code != 503:
                break
            time.sleep(1)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def patch(self, path: str, **body: Any) -> None:
        self._send("PATCH", path, body)

    def post(self, path: str, body: Any) -> None:
        self._send("POST", path, body)

    def _send(self, method: str, path: str, body: Any) -> None:
        url, auth = f"{self.page}/api{path}", tuple(AUTH.split(":"))
        httpx.request(method, url, json=body, auth=auth, timeout=30, trust_env=False).raise_for_status()

    def start(self, deployment: str, **parameters: Any) -> str:
        found = self.call("GET", f"/deployments/name/{deployment}")
        return self.call("POST", f"/deployments/{found['id']}/create_flow_run", parameters=parameters)["id"]

    def state(self, run: str) -> dict[str, Any]:
        return self.call("GET", f"/flow_runs/{run}")["state"]

    def ended(self, run: str, seconds: float = 120) -> dict[str, Any]:
        wait_for(lambda: self.state(run)["type"] in ENDED, f"the end of {run}", seconds)
        return self.state(run)

    def logs(self) -> list[str]:
        """The latest lines of all runs."""
        return [row["message"] for row in self.call("POST", "/logs/filter", sort="TIMESTAMP_DESC")]

    def flow_process(self) -> psutil.Process:
        """The process of the one flow run under way."""

        def found() -> list[psutil.Process]:
            return [c for c in children_of(self.process.pid) if "uvicorn" not in " ".join(c.cmdline())]

        return wait_for(found, "the flow's process")[0]

    def server_process(self) -> psutil.Process:
        return server_of(self.process.pid)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


def start_ui(folder: Path) -> UI:
    """Start `charter ui` in `folder`, on any free port, and wait until it serves its deployments."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    # The same secret for server and clients; a client that did not say it would get nothing.
    env = {**kept, "OMP_NUM_THREADS": "1", "PREFECT_SERVER_API_AUTH_STRING": AUTH, "PYTHONPATH": str(ROOT)}
    log = folder / "ui.log"
    start = log.stat().st_size if log.exists() else 0
    with log.open("a") as output:
        process = subprocess.Popen(
            [*CHARTER, "ui", "--port", "0", "--no-browser"], cwd=folder, env=env, stdout=output, stderr=output
        )

    def page() -> str | None:
        assert process.poll() is None, log.read_text()
        found = re.search(r"^(http://127\.0\.0\.1:\d+) ", log.read_text()[start:], re.MULTILINE)
        return found and found.group(1)

    ui = UI(folder=folder, process=process, page=wait_for(page, "the page"))
    wait_for(lambda: ui.call("POST", "/automations/filter"), "the automations")
    wait_for(lambda: _is_polled(ui), "the runner")
    return ui


def _is_polled(ui: UI) -> bool:
    found = ui.call("POST", "/deployments/filter")
    # What stands in a work pool is its worker's to poll.
    return bool(found) and all(d["status"] == "READY" for d in found if d["work_pool_name"] is None)


def server_of(pid: int) -> psutil.Process:
    """The Prefect server that a process started."""
    return next(c for c in children_of(pid) if "uvicorn" in " ".join(c.cmdline()))


def children_of(pid: int) -> list[psutil.Process]:
    """The living children of a process: one that was killed is a zombie until its parent looks."""
    children = psutil.Process(pid).children()
    return [c for c in children if c.is_running() and c.status() != psutil.STATUS_ZOMBIE]
