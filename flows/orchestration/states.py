"""States that tell the truth: what was expected to be able to go wrong is Failed, with its reason in one line."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar, get_type_hints

from prefect import get_run_logger
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.states import Failed

from flows.errors import is_ours

P = ParamSpec("P")
R = TypeVar("R")


def told(function: Callable[P, R]) -> Callable[P, R]:
    """Around the body of a flow: an error that is a message to the user becomes the Failed state's message.

    Whoever calls the flow gets the error itself. A bug keeps its traceback.
    """

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        _without_tracebacks()
        try:
            return function(*args, **kwargs)
        except ValueError as error:
            if not is_ours(error):
                raise
            reason = " ".join(str(error).split())
            get_run_logger().error("%s", reason)
            state: Any = Failed(message=reason, data=error)
            return state

    # Prefect looks names of types up where the function it is given was defined, which is here.
    run.__annotations__ = get_type_hints(function)
    run.__signature__ = inspect.signature(function, eval_str=True)  # type: ignore[attr-defined]
    return run


class _OneLine(logging.Filter):
    """Drops the engine's traceback of an error whose line has been logged."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        return error is None or not is_ours(error)


_ONE_LINE = _OneLine()


def _without_tracebacks() -> None:
    for name in ("prefect.flow_runs", "prefect.task_runs", "prefect.engine"):
        logging.getLogger(name).addFilter(_ONE_LINE)  # adding the same filter twice does nothing


@contextmanager
def without_heartbeats() -> Iterator[None]:
    """No heartbeats for the flows inside: ending them costs a second a flow, and nobody watches a temporary server
    for crashed runs, nor the parts of a run whose whole is watched."""
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield
