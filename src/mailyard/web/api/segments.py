"""Segments: who matches a filter, about, exactly, and by name."""

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from mailyard.access import scope
from mailyard.access.audit import Change
from mailyard.campaigns.audience import Audience, Counted, Members
from mailyard.campaigns.estimate import Estimate
from mailyard.campaigns.filter.tokens import FILTER_CHARACTERS
from mailyard.campaigns.segment import NAME_CHARACTERS, Segment
from mailyard.core import ids
from mailyard.web.api.contacts import ContactPage, contact_item
from mailyard.web.api.page import (
    Cursor,
    Input,
    Moment,
    NextCursor,
    Output,
    PageQuery,
    SegmentId,
    page_of,
    read_cursor,
    write_cursor,
)
from mailyard.web.api.route import Answer, Call, Route

TAG = "Segments"
_Name = Annotated[str, Meta(min_length=1, max_length=NAME_CHARACTERS)]
_Filter = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=FILTER_CHARACTERS,
        description="A filter over attributes, lists, topics and what contacts did.",
        examples=[
            'country = "DE" and plan in ("pro", "team") and not list "churned" '
            'and opened within 30 days and bought(category = "shoes", total > 50) within 90 days'
        ],
    ),
]
_LANGUAGE = """\
Conditions, with `and`, `or`, `not` and parentheses:

- `plan = "pro"`, `plan != "free"`, `plan in ("pro", "team")`, `city contains "port"`,
  `city starts with "New"`, `city ends with "ton"`, `city exists`; names with spaces stand in
  backquotes. `address` and `name` are the contact's own.
- `orders >= 3`, of numbers and of text that looks like one.
- `renews < 14 days from now`, `birthday = today`, `signed_up >= 2026-01-31`, `added > 30 days ago`:
  days as they are written, in UTC.
- `list "churned"`, `topic "news"`: by name or id.
- `opened within 30 days`, `clicked(campaign = "cmp_…")`, `bought(category = "shoes", total > 50) at
  least 2 times within 90 days`: what contacts did, in hours, days or weeks.

What a contact lacks equals nothing and is above nothing; `not` and `!=` are the exact opposite."""


class NewSegment(Input):
    """A segment to make."""

    name: _Name
    filter: _Filter


class SegmentChange(Input):
    """What to change. What is left out stays."""

    name: _Name | UnsetType = UNSET
    filter: _Filter | UnsetType = UNSET


class FilterQuestion(Input):
    """A filter to estimate."""

    filter: _Filter


class CountQuestion(Input):
    """A filter to count, and where to go on."""

    filter: _Filter
    cursor: Cursor | None = None


class SegmentItem(Output):
    """A segment."""

    id: SegmentId
    name: str
    filter: str
    created_at: Moment
    updated_at: Moment


class SegmentPage(Output):
    """Segments, newest first."""

    items: list[SegmentItem]
    next_cursor: NextCursor


class SegmentEstimate(Output):
    """How many contacts match, about."""

    contacts: int
    low: Annotated[int, Meta(description="From here to `high` holds the truth, 19 times of 20.")]
    high: int
    looked: Annotated[int, Meta(description="How many contacts were looked at.")]
    of: Annotated[int, Meta(description="How many contacts there are, about.")]


class SegmentCount(Output):
    """A part of an exact count: add `contacts` of all parts up."""

    contacts: Annotated[int, Meta(description="How many match in this part.")]
    looked: Annotated[int, Meta(description="How many contacts this part looked at, about.")]
    of: Annotated[int, Meta(description="How many contacts there are, about.")]
    next_cursor: Annotated[
        str | None, Meta(description="Give it as `cursor` to count on; null when all are counted.")
    ]


def _item(one: Segment) -> SegmentItem:
    return SegmentItem(
        id=ids.type_id(ids.SEGMENT, one.id),
        name=one.name,
        filter=one.filter,
        created_at=one.created_at,
        updated_at=one.updated_at,
    )


def _estimated(one: Estimate) -> SegmentEstimate:
    return SegmentEstimate(
        contacts=one.contacts, low=one.low, high=one.high, looked=one.looked, of=one.of
    )


def _counted(one: Counted) -> SegmentCount:
    return SegmentCount(
        contacts=one.contacts, looked=one.looked, of=one.of, next_cursor=write_cursor(one.upto)
    )


def _members(one: Members) -> ContactPage:
    return ContactPage(
        items=[contact_item(contact) for contact in one.contacts],
        next_cursor=write_cursor(one.upto),
    )


def _told(one: Segment) -> dict[str, str]:
    return {"name": one.name, "filter": one.filter}


async def create_segment(call: Call[NewSegment, None]) -> Answer:
    async with call.app.database.transaction() as tx:
        one = await call.app.segments.create(
            call.workspace_id, call.body.name, call.body.filter, tx=tx
        )
        subject = ids.type_id(ids.SEGMENT, one.id)
        return await call.done(tx, _item(one), Change("segment.create", subject, None, _told(one)))


async def list_segments(call: Call[None, PageQuery]) -> SegmentPage:
    found = await call.app.segments.page(
        call.workspace_id, after=read_cursor(call.query.cursor), limit=call.query.limit
    )
    return page_of(SegmentPage, found, _item, call.query.limit)


async def get_segment(call: Call[None, None]) -> SegmentItem:
    return _item(await call.app.segments.get(call.workspace_id, call.ids["segment_id"]))


async def change_segment(call: Call[SegmentChange, None]) -> Answer:
    body, segment_id = call.body, call.ids["segment_id"]
    async with call.app.database.transaction() as tx:
        before = await call.app.segments.get(call.workspace_id, segment_id, tx=tx)
        after = await call.app.segments.update(
            call.workspace_id,
            segment_id,
            name=None if isinstance(body.name, UnsetType) else body.name,
            source=None if isinstance(body.filter, UnsetType) else body.filter,
            tx=tx,
        )
        subject = ids.type_id(ids.SEGMENT, segment_id)
        changed = Change("segment.change", subject, _told(before), _told(after))
        return await call.done(tx, _item(after), changed)


async def delete_segment(call: Call[None, None]) -> Answer:
    segment_id = call.ids["segment_id"]
    async with call.app.database.transaction() as tx:
        before = await call.app.segments.get(call.workspace_id, segment_id, tx=tx)
        await call.app.segments.delete(call.workspace_id, segment_id, tx=tx)
        subject = ids.type_id(ids.SEGMENT, segment_id)
        return await call.done(tx, None, Change("segment.delete", subject, _told(before), None))


async def estimate_filter(call: Call[FilterQuestion, None]) -> SegmentEstimate:
    audiences = call.app.segments.audiences
    audience = await audiences.read(call.workspace_id, call.body.filter)
    return _estimated(await audiences.estimate(audience))


async def estimate_segment(call: Call[None, None]) -> SegmentEstimate:
    return _estimated(await call.app.segments.audiences.estimate(await _audience(call)))


async def count_filter(call: Call[CountQuestion, None]) -> SegmentCount:
    after = read_cursor(call.body.cursor)
    audiences = call.app.segments.audiences
    audience = await audiences.read(call.workspace_id, call.body.filter)
    return _counted(await audiences.count(audience, after))


async def list_members(call: Call[None, PageQuery]) -> ContactPage:
    after = read_cursor(call.query.cursor)
    found = await call.app.segments.audiences.members(
        await _audience(call), after=after, limit=call.query.limit
    )
    return _members(found)


async def _audience(call: Call[None, PageQuery] | Call[None, None]) -> Audience:
    return await call.app.segments.audience(call.workspace_id, call.ids["segment_id"])


ROUTES = (
    Route(
        "POST",
        "/v1/segments",
        create_segment,
        "createSegment",
        TAG,
        "Make a segment",
        scope.CONTACTS_WRITE,
        status=201,
        answer=SegmentItem,
        body=NewSegment,
        description=_LANGUAGE,
    ),
    Route(
        "GET",
        "/v1/segments",
        list_segments,
        "listSegments",
        TAG,
        "List the segments",
        scope.CONTACTS_READ,
        answer=SegmentPage,
        query=PageQuery,
    ),
    Route(
        "POST",
        "/v1/segments/estimate",
        estimate_filter,
        "estimateFilter",
        TAG,
        "How many contacts match a filter, about",
        scope.CONTACTS_READ,
        answer=SegmentEstimate,
        body=FilterQuestion,
        idempotency="none",
        description="From a sample, in half a second however many contacts there are.",
    ),
    Route(
        "POST",
        "/v1/segments/count",
        count_filter,
        "countFilter",
        TAG,
        "How many contacts match a filter, exactly",
        scope.CONTACTS_READ,
        answer=SegmentCount,
        body=CountQuestion,
        idempotency="none",
        description="Counts for about a second, then says how far it is: call it again with "
        "`next_cursor`, and add the parts up.",
    ),
    Route(
        "GET",
        "/v1/segments/{segment_id:seg}",
        get_segment,
        "getSegment",
        TAG,
        "Read a segment",
        scope.CONTACTS_READ,
        answer=SegmentItem,
    ),
    Route(
        "PATCH",
        "/v1/segments/{segment_id:seg}",
        change_segment,
        "changeSegment",
        TAG,
        "Change a segment",
        scope.CONTACTS_WRITE,
        answer=SegmentItem,
        body=SegmentChange,
        errors=(409,),
        description="Campaigns that have started keep the filter that they began with.",
    ),
    Route(
        "DELETE",
        "/v1/segments/{segment_id:seg}",
        delete_segment,
        "deleteSegment",
        TAG,
        "Remove a segment; its contacts stay",
        scope.CONTACTS_WRITE,
        status=204,
    ),
    Route(
        "GET",
        "/v1/segments/{segment_id:seg}/estimate",
        estimate_segment,
        "estimateSegment",
        TAG,
        "How many contacts are in a segment, about",
        scope.CONTACTS_READ,
        answer=SegmentEstimate,
    ),
    Route(
        "GET",
        "/v1/segments/{segment_id:seg}/contacts",
        list_members,
        "listSegmentContacts",
        TAG,
        "List the contacts in a segment",
        scope.CONTACTS_READ,
        answer=ContactPage,
        query=PageQuery,
        description="A page may be short, or empty, where few match: go on with `next_cursor`.",
    ),
)
