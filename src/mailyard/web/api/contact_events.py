"""What contacts did: recorded in batches, and read for one contact."""

# ruff: noqa: RUF012 (msgspec copies a default that is a list or an object)

from typing import Annotated

from msgspec import Meta

from mailyard.access import scope
from mailyard.access.audit import Change
from mailyard.campaigns.behaviour import EVENT_AGE, KIND, PROPERTIES, ContactEvent
from mailyard.campaigns.behaviour import NewEvent as Said
from mailyard.core import ids
from mailyard.core.limits import MIB
from mailyard.web.api.page import (
    CampaignId,
    ContactId,
    DeliveryId,
    Input,
    Moment,
    NextCursor,
    Output,
    PageQuery,
    page_of,
    read_cursor,
)
from mailyard.web.api.route import Answer, Call, Route

TAG = "Contacts"
EVENTS_PER_CALL = 1_000
_Value = str | int | float | bool | None
_Properties = Annotated[
    dict[Annotated[str, Meta(min_length=1, max_length=200)], _Value],
    Meta(
        max_length=PROPERTIES,
        description="Plain values that segments can ask for.",
        examples=[{"category": "shoes", "total": 79.9}],
    ),
]


class NewEvent(Input):
    """Something that a contact did; say the contact by `contact` or by `address`."""

    kind: Annotated[
        str, Meta(pattern=KIND, description="`opened`, `clicked`, or a name of your own.",
                  examples=["bought"])
    ]  # fmt: skip
    contact: ContactId | None = None
    address: Annotated[str, Meta(min_length=3, max_length=320)] | None = None
    at: (
        Annotated[
            Moment,
            Meta(description=f"When; now when not said. At most {EVENT_AGE.days} days ago."),
        ]
        | None
    ) = None
    properties: _Properties = {}
    key: (
        Annotated[
            str,
            Meta(
                min_length=1,
                max_length=200,
                description="Your own name of the event; with the same `at` it counts once.",
                examples=["order-1042"],
            ),
        ]
        | None
    ) = None


class NewEvents(Input):
    """Events to record, all or none."""

    events: Annotated[list[NewEvent], Meta(min_length=1, max_length=EVENTS_PER_CALL)]


class EventsRecorded(Output):
    """What became of a batch of events."""

    recorded: Annotated[int, Meta(description="How many are new.")]
    repeated: Annotated[int, Meta(description="How many were there already.")]
    unknown: Annotated[
        list[int], Meta(description="Places in the batch whose contact is not there; not recorded.")
    ]


class EventItem(Output):
    """Something that a contact did."""

    id: str
    kind: str
    at: Moment
    delivery: DeliveryId | None
    campaign: CampaignId | None
    properties: dict[str, _Value]


class EventPage(Output):
    """What a contact did, newest first."""

    items: list[EventItem]
    next_cursor: NextCursor


def _item(event: ContactEvent) -> EventItem:
    return EventItem(
        id=ids.type_id(ids.CONTACT_EVENT, event.id),
        kind=event.kind,
        at=event.at,
        delivery=ids.type_id(ids.DELIVERY, event.delivery_id) if event.delivery_id else None,
        campaign=ids.type_id(ids.CAMPAIGN, event.campaign_id) if event.campaign_id else None,
        properties=dict(event.properties or {}),
    )


def _said(event: NewEvent, place: int) -> Said:
    contact_id = None
    if event.contact is not None:
        contact_id = ids.parse_type_id(ids.CONTACT, event.contact, f"events.{place}.contact")
    return Said(event.kind, event.at, contact_id, event.address, event.properties, event.key)


async def record_events(call: Call[NewEvents, None]) -> Answer:
    said = [_said(event, place) for place, event in enumerate(call.body.events)]
    await call.app.behaviour.make_room(event.at for event in said if event.at is not None)
    async with call.app.database.transaction() as tx:
        done = await call.app.behaviour.record(call.workspace_id, said, tx)
        told = {"recorded": done.new, "kinds": dict(done.kinds)}
        subject = ids.type_id(ids.WORKSPACE, call.workspace_id)
        result = EventsRecorded(
            recorded=done.new, repeated=done.repeated, unknown=list(done.unknown)
        )
        return await call.done(tx, result, Change("contact.record_events", subject, None, told))


async def list_events(call: Call[None, PageQuery]) -> EventPage:
    found = await call.app.behaviour.page(
        call.workspace_id,
        call.ids["contact_id"],
        before=read_cursor(call.query.cursor),
        limit=call.query.limit,
    )
    return page_of(EventPage, found, _item, call.query.limit)


ROUTES = (
    Route(
        "POST",
        "/v1/contacts/events",
        record_events,
        "recordContactEvents",
        TAG,
        "Record what contacts did",
        scope.CONTACTS_WRITE,
        answer=EventsRecorded,
        body=NewEvents,
        body_bytes=8 * MIB,
        description="Segments ask for it: `bought(total > 50) within 90 days`.",
    ),
    Route(
        "GET",
        "/v1/contacts/{contact_id:con}/events",
        list_events,
        "listContactEvents",
        TAG,
        "Read what a contact did",
        scope.CONTACTS_READ,
        answer=EventPage,
        query=PageQuery,
    ),
)
