"""Deliveries: one mail to one recipient, and its story."""

from typing import Annotated, Any

from msgspec import Meta

from mailyard.access import scope
from mailyard.access.audit import Change
from mailyard.core import ids
from mailyard.core.errors import InvalidInput
from mailyard.sending.delivery import Delivery, Page
from mailyard.sending.states import State
from mailyard.web.api.page import (
    CampaignId,
    DeliveryId,
    EmailId,
    Moment,
    NextCursor,
    Output,
    PageQuery,
    read_cursor,
    since_epoch,
    write_cursor,
)
from mailyard.web.api.route import Answer, Call, Download, Media, Route
from mailyard.web.delivery import as_it_stands

TAG = "Deliveries"


class DeliveryItem(Output):
    """One mail to one recipient, and where it stands."""

    id: DeliveryId
    email_id: Annotated[EmailId | None, Meta(description="Of transactional mail.")]
    campaign_id: Annotated[CampaignId | None, Meta(description="Of campaign mail.")]
    recipient: str
    type: str
    state: State
    attempts: int
    reply_code: Annotated[int | None, Meta(description="The last SMTP reply.")]
    reply: str
    reason: Annotated[str, Meta(description="Why it stands there, where something came back.")]
    transport: str
    queued_at: Moment
    handed_off_at: Moment | None
    updated_at: Moment
    next_attempt_at: Moment | None
    expires_at: Moment | None


class DeliveryEvent(Output):
    """A step of a delivery's story."""

    at: Moment
    state: State
    attempt: int
    reply_code: int | None
    detail: str
    transport: Annotated[str, Meta(description="The provider; empty where none had the mail.")]
    told: Annotated[
        str,
        Meta(
            description="What was told after the hand-over: `delivered`, `bounced`, `delayed`, "
            "`complained`, `unsubscribed`, `replied`, `challenged`. Empty: our own attempt said it."
        ),
    ]
    reason: Annotated[str, Meta(description="Of a bounce or a complaint, such as `user_unknown`.")]
    status: Annotated[str, Meta(description="The enhanced status code (RFC 3463).")]
    source: Annotated[str, Meta(description="Who told it: `mail` or a provider's kind.")]
    message: Annotated[
        int | None,
        Meta(description="The number under which the mail that told it can be read."),
    ]


class TrackingEvent(Output):
    """What was seen of a delivery after it had left."""

    at: Moment
    kind: Annotated[str, Meta(description="`opened`, `clicked`, `unsubscribed`.")]
    machine: Annotated[
        str, Meta(description="The rule that says that no person did it; empty: a person.")
    ]
    url: Annotated[str | None, Meta(description="Where a click led.")]
    user_agent: str
    network: Annotated[str, Meta(description="Of the client; addresses are not kept.")]


class DeliveryDetail(DeliveryItem):
    """A delivery with its story from the beginning."""

    events: list[DeliveryEvent]
    tracking: list[TrackingEvent]


class DeliveryPage(Output):
    """Deliveries, newest first."""

    items: list[DeliveryItem]
    next_cursor: NextCursor


class DeliveriesQuery(PageQuery):
    """Which deliveries to list: of one email, of one campaign, or by what is known of them."""

    recipient: Annotated[str, Meta(max_length=320, description="An address.")] | None = None
    type: Annotated[str, Meta(max_length=64)] | None = None
    state: State | None = None
    email_id: EmailId | None = None
    campaign_id: CampaignId | None = None
    since: (
        Annotated[Moment, Meta(description="Accepted since; 90 days ago when not said.")] | None
    ) = None
    until: Annotated[Moment, Meta(description="Accepted before.")] | None = None


def fields_of(delivery: Delivery) -> dict[str, Any]:
    """A delivery's fields as the API shows them."""
    email_id, campaign_id = delivery.email_id, delivery.campaign_id
    return {
        "id": ids.type_id(ids.DELIVERY, delivery.id),
        "email_id": ids.type_id(ids.EMAIL, email_id) if email_id else None,
        "campaign_id": ids.type_id(ids.CAMPAIGN, campaign_id) if campaign_id else None,
        "recipient": delivery.recipient,
        "type": delivery.type,
        "state": delivery.state,
        "attempts": delivery.attempts,
        "reply_code": delivery.reply_code,
        "reply": delivery.reply,
        "reason": delivery.reason,
        "transport": delivery.transport,
        "queued_at": delivery.queued_at,
        "handed_off_at": delivery.handed_off_at,
        "updated_at": delivery.updated_at,
        "next_attempt_at": delivery.next_attempt_at,
        "expires_at": delivery.expires_at,
    }


async def list_deliveries(call: Call[None, DeliveriesQuery]) -> DeliveryPage:
    page = await _page(call)
    return DeliveryPage(
        items=[DeliveryItem(**fields_of(delivery)) for delivery in page.items],
        next_cursor=write_cursor(page.before),
    )


async def _page(call: Call[None, DeliveriesQuery]) -> Page:
    query, deliveries = call.query, call.app.deliveries
    before = read_cursor(query.cursor)
    if query.email_id is not None:
        _only(query, "email_id", {"email_id"})
        return await deliveries.page_of_email(
            call.workspace_id,
            ids.parse_type_id(ids.EMAIL, query.email_id, "email_id"),
            before=before,
            limit=query.limit,
        )
    if query.campaign_id is not None:
        _only(query, "campaign_id", {"campaign_id", "state"})
        campaign_id = ids.parse_type_id(ids.CAMPAIGN, query.campaign_id, "campaign_id")
        campaign = await call.app.campaigns.get(call.workspace_id, campaign_id)
        if campaign.first_started_at is None:
            return Page([], None)
        return await deliveries.page_of_campaign(
            call.workspace_id,
            campaign_id,
            campaign.first_started_at,
            state=query.state,
            before=before,
            limit=query.limit,
        )
    return await deliveries.page(
        call.workspace_id,
        recipient=query.recipient,
        type=query.type,
        state=query.state,
        since=since_epoch(query.since),
        until=since_epoch(query.until),
        before=before,
        limit=query.limit,
    )


def _only(query: DeliveriesQuery, chosen: str, allowed: set[str]) -> None:
    """Refuse filters that the chosen list would ignore."""
    for name in ("recipient", "type", "state", "email_id", "campaign_id", "since", "until"):
        if name not in allowed and getattr(query, name) is not None:
            raise InvalidInput(f"does not go together with {chosen}", field=name)


async def get_delivery(call: Call[None, None]) -> DeliveryDetail:
    delivery, story = await call.app.deliveries.get(call.workspace_id, call.ids["delivery_id"])
    seen = await call.app.tracking_report.of_delivery(call.workspace_id, delivery.id)
    return DeliveryDetail(
        **fields_of(await as_it_stands(call.app.engine, delivery)),
        tracking=[
            TrackingEvent(
                at=event.at,
                kind=event.kind,
                machine=event.machine,
                url=event.url,
                user_agent=event.user_agent,
                network=event.network,
            )
            for event in seen
        ],
        events=[
            DeliveryEvent(
                at=event.at,
                state=event.state,
                attempt=event.attempt,
                reply_code=event.reply_code,
                detail=event.detail,
                transport=event.transport,
                told=event.kind,
                reason=event.reason,
                status=event.status,
                source=event.source,
                message=event.seq if event.message_id is not None else None,
            )
            for event in story
        ],
    )


async def cancel_delivery(call: Call[None, None]) -> Answer:
    delivery_id = call.ids["delivery_id"]
    async with call.app.database.transaction() as tx:
        before = await call.app.emails.cancel_delivery(call.workspace_id, delivery_id, tx)
        withdrawn = Change(
            "delivery.cancel",
            ids.type_id(ids.DELIVERY, delivery_id),
            {"state": before.value},
            {"state": State.CANCELLED.value},
        )
        delivery, _ = await call.app.deliveries.get(call.workspace_id, delivery_id, tx)
        return await call.done(tx, DeliveryItem(**fields_of(delivery)), withdrawn)


async def get_returned_mail(call: Call[None, None]) -> Download:
    number = call.names["number"]
    if not (number.isdecimal() and len(number) < 10):
        raise InvalidInput("a number is wanted", field="number")
    delivery_id = call.ids["delivery_id"]
    raw = await call.app.deliveries.returned_mail(call.workspace_id, delivery_id, int(number))
    return Download(raw, "message/rfc822", f"{ids.type_id(ids.DELIVERY, delivery_id)}.eml")


ROUTES = (
    Route(
        "GET",
        "/v1/deliveries",
        list_deliveries,
        "listDeliveries",
        TAG,
        "Find deliveries",
        scope.EMAILS_READ,
        answer=DeliveryPage,
        query=DeliveriesQuery,
        errors=(404,),
    ),
    Route(
        "GET",
        "/v1/deliveries/{delivery_id:dlv}",
        get_delivery,
        "getDelivery",
        TAG,
        "Read a delivery and its story",
        scope.EMAILS_READ,
        answer=DeliveryDetail,
        description="Its state is `leased` while a worker holds it and has not handed it off yet. "
        "Lists show `queued` or `deferred` then.",
    ),
    Route(
        "GET",
        "/v1/deliveries/{delivery_id:dlv}/mails/{number}",
        get_returned_mail,
        "getReturnedMail",
        TAG,
        "Download the mail that told an event",
        scope.EMAILS_READ,
        answer=Media("message/rfc822", "As it came back; kept for 30 days."),
        description="`number` is the event's `message`.",
    ),
    Route(
        "POST",
        "/v1/deliveries/{delivery_id:dlv}/cancel",
        cancel_delivery,
        "cancelDelivery",
        TAG,
        "Withdraw an email from one recipient",
        scope.EMAILS_SEND,
        answer=DeliveryItem,
        description="409 once the mail was handed over. A campaign is cancelled as a whole.",
    ),
)
