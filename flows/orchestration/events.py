"""Telling a Prefect server that a constitution was published, so that an automation can act on it."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from constitution import Constitution

PUBLISHED = "charter.constitution.published"
_PATIENCE_SECONDS = 10.0


def announce(constitution: Constitution) -> str | None:
    """Send the event where PREFECT_API_URL names a server; returns why it could not be sent, or None.

    Publishing has happened by then, so nothing here raises.
    """
    if not os.environ.get("PREFECT_API_URL"):
        return None
    try:
        asyncio.run(asyncio.wait_for(_send(constitution), _PATIENCE_SECONDS))
    except Exception as error:  # whatever a network and a foreign client come up with
        return " ".join(str(error).split())[:200] or type(error).__name__
    return None


async def _send(constitution: Constitution) -> None:
    from prefect.events import Event, Resource
    from prefect.events.clients import get_events_client

    logging.getLogger("prefect.events.clients").setLevel(logging.CRITICAL)  # the caller says it in one line

    resource = {
        "prefect.resource.id": f"charter.constitution.{constitution.name}",
        "prefect.resource.name": constitution.ref,
    }
    payload = {
        "ref": constitution.ref,
        "name": constitution.name,
        "version": constitution.version,
        "digest": constitution.digest,
    }
    event = Event(event=PUBLISHED, resource=Resource(resource), payload=payload)
    async with get_events_client(reconnection_attempts=0, checkpoint_every=1) as client:
        await client.emit(event)
