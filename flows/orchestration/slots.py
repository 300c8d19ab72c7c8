"""One GPU job at a time: flows that train or sample hold the slot of the server's limit `gpu` while they work.

`charter ui` makes the limit; on another server, `prefect gcl create gpu --limit 1` does. Without it nobody waits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectNotFound

GPU = "gpu"
# A killed run gives its slot back when its lease ends; a living one renews it. Prefect's shortest.
_LEASE_SECONDS = 60.0

_held: ContextVar[bool] = ContextVar("gpu_held", default=False)


@contextmanager
def gpu_slot() -> Iterator[None]:
    """Hold the slot; a flow inside one that holds it does not wait for itself."""
    if _held.get() or not _is_limited():
        yield
        return
    # A server that is away for a moment must not end a training that does not need it.
    with concurrency(GPU, lease_duration=_LEASE_SECONDS, raise_on_lease_renewal_failure=False):
        token = _held.set(True)
        try:
            yield
        finally:
            _held.reset(token)


async def create_limit() -> None:
    """Make the limit, unless there is one: a person may have changed it."""
    async with get_client() as client:
        try:
            await client.read_global_concurrency_limit_by_name(GPU)
        except ObjectNotFound:
            await client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=GPU, limit=1))


def _is_limited() -> bool:
    with get_client(sync_client=True) as client:
        try:
            limit = client.read_global_concurrency_limit_by_name(GPU)
        except ObjectNotFound:
            return False
    if limit.active and limit.active_slots >= limit.limit:
        get_run_logger().info("waiting: another run holds the GPU (concurrency limit %r)", GPU)
    return limit.active
