"""Webhooks: where a workspace's events are told."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from mailyard.access import scope
from mailyard.access.audit import Change
from mailyard.bus.filter import EventFilter, make_filter
from mailyard.bus.live import KINDS
from mailyard.core import ids
from mailyard.web.api.page import (
    InboxId,
    Input,
    Moment,
    NextCursor,
    Output,
    PageQuery,
    WebhookId,
    page_of,
    read_cursor,
)
from mailyard.web.api.route import Answer, Call, Route
from mailyard.webhooks.endpoint import (
    CONCURRENCY_MAX,
    NAME_CHARACTERS,
    OVERLAP_MAX_S,
    OVERLAP_S,
    URL_CHARACTERS,
    Counts,
    Webhook,
    Wish,
    told,
)

TAG = "Webhooks"

_Name = Annotated[str, Meta(min_length=1, max_length=NAME_CHARACTERS, examples=["Orders"])]
_Url = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=URL_CHARACTERS,
        examples=["https://app.example.org/hooks/mail"],
        description="http or https, at a public address. Redirects are not followed.",
    ),
]
_Kinds = Annotated[
    list[str],
    Meta(min_length=1, max_length=20, description=f"Any of {', '.join(KINDS)}."),
]
_Inboxes = Annotated[
    list[InboxId], Meta(max_length=100, description="Only events of these inboxes; empty: of all.")
]
_Where = Annotated[
    dict[str, list[str]],
    Meta(
        description="Fields of the event and texts of which one must fit, in any case; `*` stands "
        "for anything.",
        examples=[{"subject": ["*invoice*"]}],
    ),
]
_Payload = Annotated[
    Literal["value", "reference"],
    Meta(
        description="`value`: the event, with the mail of a `message.received`. `reference`: ids, "
        "and the `url` that has the rest."
    ),
]
_Ordered = Annotated[
    bool,
    Meta(
        description="One after the other in the order of the events: while one is tried again, "
        "those behind it wait."
    ),
]
_Concurrency = Annotated[
    int, Meta(ge=1, le=CONCURRENCY_MAX, description="Requests at the same time; ordered: one.")
]


class NewWebhook(Input):
    """An endpoint that is told of events."""

    name: _Name
    url: _Url
    kinds: _Kinds
    inboxes: _Inboxes = msgspec.field(default_factory=list)
    where: _Where = msgspec.field(default_factory=dict)
    payload: _Payload = "value"
    ordered: _Ordered = False
    concurrency: _Concurrency = 5


class WebhookChange(Input):
    """What is to be different; the rest stays."""

    name: _Name | UnsetType = UNSET
    url: _Url | UnsetType = UNSET
    kinds: _Kinds | UnsetType = UNSET
    inboxes: _Inboxes | UnsetType = UNSET
    where: _Where | UnsetType = UNSET
    payload: _Payload | UnsetType = UNSET
    ordered: _Ordered | UnsetType = UNSET
    concurrency: _Concurrency | UnsetType = UNSET
    enabled: (
        Annotated[
            bool,
            Meta(description="Enabled again it is told of what happens from then on; see replays."),
        ]
        | UnsetType
    ) = UNSET


class SecretRotation(Input):
    """How a secret is replaced."""

    overlap_s: Annotated[
        float,
        Meta(
            ge=0,
            le=OVERLAP_MAX_S,
            description="For so long requests carry the old secret's signature too.",
        ),
    ] = OVERLAP_S


class WebhookHealth(Output):
    """How an endpoint fares."""

    failures: Annotated[int, Meta(description="In a row.")]
    failing_since: Moment | None
    rests_until: Annotated[
        Moment | None, Meta(description="It did not answer: nothing is told before this.")
    ]
    told_at: Annotated[Moment | None, Meta(description="When it last took something.")]
    waiting: Annotated[int, Meta(description="Deliveries in its line, counted up to 10,000.")]
    dead: Annotated[int, Meta(description="Dead deliveries, counted up to 10,000.")]


class WebhookItem(Output):
    """An endpoint, and how it fares."""

    id: WebhookId
    name: str
    url: str
    kinds: list[str]
    inboxes: list[str]
    where: dict[str, list[str]]
    payload: str
    ordered: bool
    concurrency: int
    enabled: bool
    disabled_at: Moment | None
    disabled_why: Annotated[str, Meta(description="Empty: a person disabled it.")]
    health: WebhookHealth
    created_at: Moment


class MadeWebhook(WebhookItem):
    """A new endpoint. Its `secret` is shown once."""

    secret: Annotated[str, Meta(examples=["whsec_…"])]


class NewSecret(Output):
    """The secret that signs from now on. It is shown once."""

    secret: Annotated[str, Meta(examples=["whsec_…"])]


class WebhookPage(Output):
    """Endpoints, newest first."""

    items: list[WebhookItem]
    next_cursor: NextCursor


def _item(webhook: Webhook, counts: Counts | None) -> WebhookItem:
    return WebhookItem(**_fields(webhook, counts))


def _fields(webhook: Webhook, counts: Counts | None) -> dict[str, Any]:
    wanted = webhook.filter
    return {
        "id": ids.type_id(ids.WEBHOOK, webhook.id),
        "name": webhook.name,
        "url": webhook.url,
        "kinds": list(wanted.kinds),
        "inboxes": list(wanted.inboxes),
        "where": {field: list(texts) for field, texts in wanted.where},
        "payload": webhook.payload,
        "ordered": webhook.ordered,
        "concurrency": webhook.concurrency,
        "enabled": webhook.enabled,
        "disabled_at": webhook.disabled_at,
        "disabled_why": webhook.disabled_why,
        "health": WebhookHealth(
            webhook.failures,
            webhook.failing_since,
            webhook.rests_until,
            webhook.told_at,
            counts.waiting if counts else 0,
            counts.dead if counts else 0,
        ),
        "created_at": webhook.created_at,
    }


def _change(action: str, webhook: Webhook, before: Any, after: Any) -> Change:
    return Change(action, ids.type_id(ids.WEBHOOK, webhook.id), before, after)


async def _with_counts(call: Call[Any, Any], webhook: Webhook) -> WebhookItem:
    counts = await call.app.webhooks.counts(call.workspace_id, [webhook.id])
    return _item(webhook, counts.get(webhook.id))


async def create_webhook(call: Call[NewWebhook, None]) -> Answer:
    body = call.body
    wish = Wish(
        body.name,
        body.url,
        make_filter(body.kinds, body.inboxes, body.where),
        body.payload,
        body.ordered,
        body.concurrency,
    )
    async with call.app.database.transaction() as tx:
        webhook, secret = await call.app.webhooks.create(call.workspace_id, wish, tx)
        answer = MadeWebhook(**_fields(webhook, None), secret=secret)
        change = _change("webhook.create", webhook, None, told(webhook))
        made = await call.done(tx, answer, change)
    call.app.webhooks.changed()
    return made


async def list_webhooks(call: Call[None, PageQuery]) -> WebhookPage:
    query, webhooks = call.query, call.app.webhooks
    found = await webhooks.page(
        call.workspace_id, before=read_cursor(query.cursor), limit=query.limit
    )
    counts = await webhooks.counts(call.workspace_id, [one.id for one in found])
    return page_of(WebhookPage, found, lambda one: _item(one, counts.get(one.id)), query.limit)


async def get_webhook(call: Call[None, None]) -> WebhookItem:
    webhook = await call.app.webhooks.get(call.workspace_id, call.ids["webhook_id"])
    return await _with_counts(call, webhook)


async def change_webhook(call: Call[WebhookChange, None]) -> Answer:
    webhooks, webhook_id, body = call.app.webhooks, call.ids["webhook_id"], call.body
    async with call.app.database.transaction() as tx:
        before = await webhooks.get(call.workspace_id, webhook_id, tx)
        after = await webhooks.change(call.workspace_id, webhook_id, _changed(before, body), tx)
        if body.enabled is True and not after.enabled:
            after = await webhooks.enable(call.workspace_id, webhook_id, tx)
        elif body.enabled is False and after.enabled:
            after = await webhooks.disable(call.workspace_id, webhook_id, tx)
        change = _change("webhook.change", after, told(before), told(after))
        answer = await call.done(tx, await _with_counts(call, after), change)
    webhooks.changed()
    return answer


def _changed(before: Webhook, body: WebhookChange) -> Wish:
    given = {
        name: value
        for name in ("name", "url", "payload", "ordered", "concurrency")
        if (value := getattr(body, name)) is not UNSET
    }
    return msgspec.structs.replace(before.wish, filter=_filter_of(before.filter, body), **given)


def _filter_of(before: EventFilter, body: WebhookChange) -> EventFilter:
    return make_filter(
        before.kinds if body.kinds is UNSET else body.kinds,
        before.inboxes if body.inboxes is UNSET else body.inboxes,
        dict(before.where) if body.where is UNSET else body.where,
    )


async def remove_webhook(call: Call[None, None]) -> Answer:
    async with call.app.database.transaction() as tx:
        webhook = await call.app.webhooks.remove(call.workspace_id, call.ids["webhook_id"], tx)
        answer = await call.done(tx, None, _change("webhook.remove", webhook, told(webhook), None))
    call.app.webhooks.changed()
    return answer


async def rotate_secret(call: Call[SecretRotation, None]) -> Answer:
    async with call.app.database.transaction() as tx:
        webhook, secret = await call.app.webhooks.rotate(
            call.workspace_id, call.ids["webhook_id"], call.body.overlap_s, tx
        )
        change = _change("webhook.rotate", webhook, None, {"overlap_s": call.body.overlap_s})
        return await call.done(tx, NewSecret(secret), change)


ROUTES = (
    Route(
        "POST",
        "/v1/webhooks",
        create_webhook,
        "createWebhook",
        TAG,
        "Make a webhook",
        scope.WEBHOOKS_WRITE,
        status=201,
        answer=MadeWebhook,
        body=NewWebhook,
        idempotency="none",
        errors=(409,),
        description="Requests are signed as Standard Webhooks says (`webhook-id`, "
        "`webhook-timestamp`, `webhook-signature`). The `secret` is shown once. It is told of what "
        "happens from now on, at least once each.",
    ),
    Route(
        "GET",
        "/v1/webhooks",
        list_webhooks,
        "listWebhooks",
        TAG,
        "List webhooks",
        scope.WEBHOOKS_READ,
        answer=WebhookPage,
        query=PageQuery,
    ),
    Route(
        "GET",
        "/v1/webhooks/{webhook_id:whk}",
        get_webhook,
        "getWebhook",
        TAG,
        "Read a webhook and how it fares",
        scope.WEBHOOKS_READ,
        answer=WebhookItem,
    ),
    Route(
        "PATCH",
        "/v1/webhooks/{webhook_id:whk}",
        change_webhook,
        "changeWebhook",
        TAG,
        "Change, enable or disable a webhook",
        scope.WEBHOOKS_WRITE,
        answer=WebhookItem,
        body=WebhookChange,
    ),
    Route(
        "DELETE",
        "/v1/webhooks/{webhook_id:whk}",
        remove_webhook,
        "removeWebhook",
        TAG,
        "Remove a webhook",
        scope.WEBHOOKS_WRITE,
        status=204,
        description="What waits in its line is told to nobody.",
    ),
    Route(
        "POST",
        "/v1/webhooks/{webhook_id:whk}/rotate",
        rotate_secret,
        "rotateWebhookSecret",
        TAG,
        "Replace a webhook's secret",
        scope.WEBHOOKS_WRITE,
        answer=NewSecret,
        body=SecretRotation,
        idempotency="none",
        errors=(409,),
        description="For the time of the overlap requests carry a signature of each secret.",
    ),
)
