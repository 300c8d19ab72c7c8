"""Prefect for one run on this machine: a server of its own, its database beside the runs, nothing sent anywhere.

`prepare` must be called before prefect is imported: it sets what prefect reads from the environment at import.
A user's own PREFECT_API_URL or PREFECT_HOME is respected.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from flows.config.forms import RunRequest
from flows.errors import FlowError
from flows.orchestration import server as serving
from flows.orchestration.password import ASKED, SAID, random_password, share_password
from flows.report.data import ReportData
from flows.runs.progress import Reporter


def prepare(runs_dir: Path) -> None:
    """Set the environment for a quiet local Prefect, and make its folder: its server does not."""
    home = runs_dir.resolve() / ".prefect"
    home.mkdir(parents=True, exist_ok=True)
    settings = {
        "PREFECT_HOME": str(home),
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        # The terminal shows our own progress; the run's logs are in the API.
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    }
    for name, value in settings.items():
        os.environ.setdefault(name, value)
    # Another machine's server is not told this one's password.
    here = urlsplit(os.environ.get("PREFECT_API_URL", "")).hostname in serving.LOCAL
    share_password(home if here else None)


def run_rlaif(
    request: RunRequest, reporter: Reporter, on_result: Callable[[ReportData], None], *, runs_dir: Path
) -> str:
    """Run the `rlaif` flow of a checked request in this process; returns the run directory.

    SIGTERM ends the process with code 143.
    """
    if "PREFECT_API_URL" in os.environ:
        return _run(request, reporter, on_result)
    log = runs_dir / ".prefect" / "server.log"
    # The machine's other users have no business with it.
    os.environ.setdefault(ASKED, random_password())
    os.environ[SAID] = os.environ[ASKED]
    with serving.server(port=serving.free_port(0), log=log, services=False) as server:
        os.environ["PREFECT_API_URL"] = server.url
        import flows.orchestration.rlaif  # noqa: F401  (seconds of imports, while the server comes up)

        server.wait()
        return _run(request, reporter, on_result)


def _run(request: RunRequest, reporter: Reporter, on_result: Callable[[ReportData], None]) -> str:
    from prefect.exceptions import PrefectHTTPStatusError, TerminationSignal

    from flows.orchestration.rlaif import CHECKED, RESULT, TERMINAL, rlaif
    from flows.orchestration.states import without_heartbeats

    TERMINAL.set(reporter)
    RESULT.set(on_result)
    CHECKED.set(True)
    try:
        with without_heartbeats():
            return rlaif(request)
    except TerminationSignal:
        raise SystemExit(128 + signal.SIGTERM) from None
    except (httpx.TransportError, PrefectHTTPStatusError) as error:
        if isinstance(error, PrefectHTTPStatusError) and error.response.status_code == 401:
            raise FlowError(
                f"the Prefect server at {os.environ['PREFECT_API_URL']} asks for a password: set {SAID}"
            ) from error
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FlowError(
            f"the Prefect server at {os.environ['PREFECT_API_URL']} is gone ({reason}); "
            "the same command goes on from what was done"
        ) from error
    finally:
        send_what_is_left()


def send_what_is_left() -> None:
    """Logs and events wait in threads of prefect's; at exit they would look for a server that is gone."""
    import inspect

    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker
    from prefect.utilities.asyncutils import run_coro_as_sync

    async def drain() -> None:
        for result in (APILogWorker.instance().drain(), EventsWorker.drain_all()):
            if inspect.isawaitable(result):
                await result

    run_coro_as_sync(drain())
