"""What webhooks were told: the log, the test button, dead deliveries put back."""

from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from msgspec import Meta

from mailyard.access import scope
from mailyard.access.audit import Change
from mailyard.core import ids
from mailyard.web.api.page import (
    Input,
    Moment,
    NextCursor,
    Output,
    PageQuery,
    WebhookDeliveryId,
    WebhookId,
    page_of,
    read_cursor,
)
from mailyard.web.api.route import Answer, Call, Route
from mailyard.web.api.webhooks import TAG
from mailyard.webhooks.log import REDRIVE_MAX, Delivery, LoggedAttempt, Story


class RedriveWebhook(Input):
    """Which dead deliveries go back into the line."""

    delivery_ids: Annotated[list[WebhookDeliveryId], Meta(min_length=1, max_length=500)] | None = (
        None
    )


class WebhookDelivery(Output):
    """An event that an endpoint is told of. `status` and `why` are of the last attempt."""

    id: WebhookDeliveryId
    event_id: Annotated[str, Meta(description="`webhook-id`, and the event's id in the stream.")]
    kind: str
    happened_at: Moment
    state: Annotated[str, Meta(description="`waiting`, `delivered` or `dead`.")]
    attempts: int
    due_at: Annotated[Moment, Meta(description="When it is tried next, while it waits.")]
    status: int | None
    why: str
    ended_at: Moment | None


class WebhookAttempt(Output):
    """A request and its answer, the first 4 KB of each body."""

    number: int
    at: Moment
    took_ms: int
    url: str
    request_headers: dict[str, str]
    request_body: str
    status: Annotated[int | None, Meta(description="Null: no answer came.")]
    answer_headers: dict[str, str]
    answer_body: str
    error: str


class WebhookStory(WebhookDelivery):
    """A delivery with every request that was made for it."""

    webhook_id: WebhookId
    log: list[WebhookAttempt]


class WebhookDeliveryPage(Output):
    """What an endpoint was told, newest first."""

    items: list[WebhookDelivery]
    next_cursor: NextCursor


class WebhookDeliveriesQuery(PageQuery):
    """Which deliveries to list."""

    state: Literal["waiting", "delivered", "dead"] | None = None


class Redriven(Output):
    """What went back into the line."""

    delivery_ids: list[str]


def _delivery(one: Delivery) -> dict[str, Any]:
    return {
        "id": ids.type_id(ids.WEBHOOK_DELIVERY, one.id),
        "event_id": one.event,
        "kind": one.kind,
        "happened_at": one.happened_at,
        "state": one.state,
        "attempts": one.attempts,
        "due_at": one.due_at,
        "status": one.status,
        "why": one.why,
        "ended_at": one.ended_at,
    }


def _story(story: Story) -> WebhookStory:
    return WebhookStory(
        **_delivery(story.delivery),
        webhook_id=ids.type_id(ids.WEBHOOK, story.webhook_id),
        log=[_attempt(one) for one in story.attempts],
    )


def _attempt(one: LoggedAttempt) -> WebhookAttempt:
    return WebhookAttempt(**msgspec.structs.asdict(one))


async def test_webhook(call: Call[None, None]) -> Answer:
    log = call.app.webhook_log
    trial = await log.test(call.workspace_id, call.ids["webhook_id"])
    webhook_id = ids.type_id(ids.WEBHOOK, trial.webhook_id)
    async with call.app.database.transaction() as tx:
        story = await log.keep(call.workspace_id, trial, tx)
        change = Change("webhook.test", webhook_id, None, {"status": story.delivery.status})
        return await call.done(tx, _story(story), change)


async def list_deliveries(call: Call[None, WebhookDeliveriesQuery]) -> WebhookDeliveryPage:
    query = call.query
    found = await call.app.webhook_log.page(
        call.workspace_id,
        call.ids["webhook_id"],
        state=query.state or "",
        before=read_cursor(query.cursor),
        limit=query.limit,
    )
    return page_of(
        WebhookDeliveryPage, found, lambda one: WebhookDelivery(**_delivery(one)), query.limit
    )


async def get_delivery(call: Call[None, None]) -> WebhookStory:
    return _story(await call.app.webhook_log.story(call.workspace_id, call.ids["delivery_id"]))


async def redrive_deliveries(call: Call[RedriveWebhook, None]) -> Answer:
    chosen: list[UUID] | None = None
    if call.body.delivery_ids is not None:
        chosen = [
            ids.parse_type_id(ids.WEBHOOK_DELIVERY, one, "delivery_ids")
            for one in call.body.delivery_ids
        ]
    webhook_id = call.ids["webhook_id"]
    async with call.app.database.transaction() as tx:
        back = await call.app.webhook_log.redrive(call.workspace_id, webhook_id, chosen, tx)
        change = Change(
            "webhook.redrive", ids.type_id(ids.WEBHOOK, webhook_id), None, {"deliveries": len(back)}
        )
        answer = Redriven([ids.type_id(ids.WEBHOOK_DELIVERY, one) for one in back])
        return await call.done(tx, answer, *([change] if back else []))


ROUTES = (
    Route(
        "POST",
        "/v1/webhooks/{webhook_id:whk}/test",
        test_webhook,
        "testWebhook",
        TAG,
        "Send a test event now",
        scope.WEBHOOKS_WRITE,
        answer=WebhookStory,
        idempotency="none",
        description="Answers with the request and what the endpoint answered, within 15 seconds.",
    ),
    Route(
        "GET",
        "/v1/webhooks/{webhook_id:whk}/deliveries",
        list_deliveries,
        "listWebhookDeliveries",
        TAG,
        "List what a webhook was told",
        scope.WEBHOOKS_READ,
        answer=WebhookDeliveryPage,
        query=WebhookDeliveriesQuery,
    ),
    Route(
        "GET",
        "/v1/webhook-deliveries/{delivery_id:whd}",
        get_delivery,
        "getWebhookDelivery",
        TAG,
        "Read a delivery with its requests and answers",
        scope.WEBHOOKS_READ,
        answer=WebhookStory,
    ),
    Route(
        "POST",
        "/v1/webhooks/{webhook_id:whk}/redrive",
        redrive_deliveries,
        "redriveWebhookDeliveries",
        TAG,
        "Put dead deliveries back into the line",
        scope.WEBHOOKS_WRITE,
        answer=Redriven,
        body=RedriveWebhook,
        description=f"Without `delivery_ids` all of them, up to {REDRIVE_MAX:,} a call.",
    ),
)
