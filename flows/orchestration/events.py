"""Telling a Prefect server that a constitution was published, and the automations that act on events.

`python -m flows.orchestration.events` makes the automations of automations.yaml on a server. One that exists is left as
it is, switched on or off, edited or not. Prefect is imported only where a server is spoken to.
"""

from __future__ import annotations

import asyncio
import logging
import os
from importlib import resources
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from constitution import Constitution

PUBLISHED = "charter.constitution.published"
_PATIENCE_SECONDS = 10.0
# Reserved for examples (RFC 2606): nothing is sent before a person gives an address.
_NOWHERE = "https://example.invalid/charter"


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


def read_automations() -> list[dict[str, Any]]:
    """The shipped automations, as the file has them."""
    text = (resources.files("flows.orchestration") / "automations.yaml").read_text(encoding="utf-8")
    return list(yaml.safe_load(text)["automations"])


async def create_automations() -> list[str]:
    """Make those that the server does not have; returns their names.

    One whose deployment the server does not know is left out.
    """
    from prefect.client.orchestration import get_client
    from prefect.events.schemas.automations import AutomationCore
    from prefect.exceptions import ObjectNotFound

    created = []
    async with get_client() as client:
        for entry in read_automations():
            if await client.read_automations_by_name(entry["name"]):
                continue
            try:
                actions = [await _resolved(client, action) for action in entry["actions"]]
            except ObjectNotFound:
                continue
            await client.create_automation(AutomationCore.model_validate({**entry, "actions": actions}))
            created.append(entry["name"])
    return created


async def _resolved(client: Any, action: dict[str, Any]) -> dict[str, Any]:
    values = dict(action)
    if name := values.pop("deployment", None):
        values["deployment_id"] = (await client.read_deployment_by_name(name)).id
    if block := values.pop("notify", None):
        values["block_document_id"] = await _block(client, block)
    return values


async def _block(client: Any, name: str) -> Any:
    from prefect.blocks.notifications import CustomWebhookNotificationBlock
    from prefect.exceptions import ObjectNotFound

    slug = CustomWebhookNotificationBlock.get_block_type_slug()
    try:
        return (await client.read_block_document_by_name(name, slug)).id
    except ObjectNotFound:
        text = {"text": "{{subject}}\n{{body}}"}
        made = CustomWebhookNotificationBlock(
            name=name, url=_NOWHERE, json_data=text, headers=None, cookies=None
        )
        return await made.asave(name)


if __name__ == "__main__":
    for made in asyncio.run(create_automations()):
        print(made)
