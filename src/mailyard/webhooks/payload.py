"""What an endpoint is told of an event: the body of its request, after Standard Webhooks.

    {"type": "message.received", "timestamp": "2026-01-31T12:00:00Z", "data": {…}}

By value `data` is the event, with the mail itself for a message that has arrived. By reference it
is ids, and `url` where the API says the rest.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Protocol
from uuid import UUID

import msgspec

from mailyard.bus.live import (
    CAMPAIGN_PROGRESS,
    DELIVERY_CHANGED,
    DEMO_PROGRESS,
    IMPORT_PROGRESS,
    MESSAGE_RECEIVED,
)
from mailyard.webhooks.endpoint import REFERENCE

TEST = "webhook.test"  # the kind of what the button sends

# kind -> (the id that names the thing, where the API gives it)
_PLACES = {
    MESSAGE_RECEIVED: ("message_id", "/v1/messages/"),
    DELIVERY_CHANGED: ("delivery_id", "/v1/deliveries/"),
    CAMPAIGN_PROGRESS: ("campaign_id", "/v1/campaigns/"),
    IMPORT_PROGRESS: ("import_id", "/v1/imports/"),
    DEMO_PROGRESS: ("demo_id", "/v1/demos/"),
}


class Contents(Protocol):
    """What reads the mail behind an event; None when it is gone meanwhile."""

    async def __call__(
        self, workspace_id: UUID, item: Mapping[str, Any]
    ) -> Mapping[str, Any] | None: ...


async def body_of(
    workspace_id: UUID,
    kind: str,
    happened_at: datetime,
    item: Mapping[str, Any],
    *,
    payload: str,
    page_url: str,
    contents: Contents,
) -> bytes:
    """The body. A message that is gone by now is told with `message` null."""
    data: dict[str, Any]
    if payload == REFERENCE:
        data = reference(kind, item, page_url)
    elif kind == MESSAGE_RECEIVED:
        data = {**item, "message": await contents(workspace_id, item)}
    else:
        data = dict(item)
    return msgspec.json.encode(
        {
            "type": kind,
            "timestamp": happened_at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
            "data": data,
        }
    )


def reference(kind: str, item: Mapping[str, Any], page_url: str) -> dict[str, Any]:
    """The ids of an event, and where to ask."""
    data = {name: value for name, value in item.items() if name == "id" or name.endswith("_id")}
    place = _PLACES.get(kind)
    if place is not None and isinstance(item.get(place[0]), str):
        data["url"] = f"{page_url}{place[1]}{item[place[0]]}"
    return data
