"""This process as a client of a Prefect server that a test started."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def client_of(url: str, auth: str | None = None) -> Iterator[None]:
    """Flows inside run against the server at `url`.

    Prefect sends events from a thread that serves every server of the process: one that outlived its server would
    take the next test's events and try for minutes to reach what is gone.
    """
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    from flows.orchestration.local import send_what_is_left

    with temporary_settings({PREFECT_API_URL: url, PREFECT_API_AUTH_STRING: auth}):
        try:
            yield
        finally:
            send_what_is_left()
