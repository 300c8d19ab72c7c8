"""The automations of automations.yaml on a Prefect server; also `python -m flows.orchestration.automations`.

One that exists is left as it is, switched on or off, edited or not.
"""

from __future__ import annotations

import asyncio
from importlib import resources
from typing import Any

import yaml
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import get_client
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound

# Reserved for examples (RFC 2606): nothing is sent before a person gives an address.
_NOWHERE = "https://example.invalid/charter"


def read_automations() -> list[dict[str, Any]]:
    """The shipped automations, as the file has them."""
    text = (resources.files("flows.orchestration") / "automations.yaml").read_text(encoding="utf-8")
    return list(yaml.safe_load(text)["automations"])


async def create_automations() -> list[str]:
    """Make those that the server does not have; returns their names.

    One whose deployment the server does not know is left out.
    """
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
