"""Destinations: how each is written to now, what happened to it, pausing.

Own delivery serves the whole installation, so all of this is its first workspace's.
"""

from datetime import date
from typing import Annotated

from msgspec import Meta

from mailyard.access import scope
from mailyard.access.audit import Change
from mailyard.core.errors import InvalidInput
from mailyard.core.limits import API_PAGE_ITEMS
from mailyard.sending.shape.measure import DURATION_S_MAX
from mailyard.sending.shaping import Destination, Happening
from mailyard.web.api.page import (
    Input,
    Limit,
    Moment,
    NameCursor,
    NextCursor,
    Output,
    PageQuery,
    page_of,
    read_cursor,
    read_names,
    write_names,
)
from mailyard.web.api.route import Answer, Call, Route

TAG = "Destinations"
OPERATOR = "Only from the installation's first workspace."
_Place = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=300,
        description="The destination's name: its mail servers, or a receiver that has many.",
        examples=["google", "mx.example.org"],
    ),
]


class DestinationAnswer(Output):
    """What a destination said, recipients' names left out."""

    at: Moment
    text: str
    outcome: str


class DestinationItem(Output):
    """A destination as one source address sees it."""

    destination: str
    source: Annotated[str, Meta(description="The address that mail leaves from; empty: any.")]
    receiver: Annotated[str, Meta(description="The entry of the shaping file that it is under.")]
    mode: Annotated[str, Meta(description="`open`, `slower`, `paused` or `probing`.")]
    share: Annotated[float, Meta(description="Of its limits, after answers that slowed it.")]
    rate_per_s: Annotated[float, Meta(description="Recipients a second now, all workers together.")]
    connections: Annotated[int, Meta(description="That workers hold now.")]
    connections_most: int
    workers: int
    until: Annotated[Moment | None, Meta(description="Paused or not probed until then.")]
    why: str
    accepted: int
    later: int
    never: int
    unknown: int
    answers: Annotated[
        list[DestinationAnswer], Meta(description="The last that were no acceptances.")
    ]
    updated_at: Moment


class DestinationPage(Output):
    """Destinations by name."""

    items: list[DestinationItem]
    next_cursor: NextCursor


class DestinationsQuery(Input):
    """Which destinations to list."""

    search: Annotated[str, Meta(max_length=100, description="Part of its name.")] = ""
    held: Annotated[bool, Meta(description="Only those that are slower, paused or probing.")] = (
        False
    )
    limit: Limit = API_PAGE_ITEMS
    cursor: NameCursor | None = None


class DestinationEvent(Output):
    """What happened to a destination."""

    at: Moment
    destination: str
    source: str
    kind: Annotated[str, Meta(description="`paused`, `slowed`, `probing`, `back` or `alert`.")]
    rule: str
    answer: str
    share: float
    until: Moment | None
    text: str


class DestinationEventPage(Output):
    """What happened, newest first."""

    items: list[DestinationEvent]
    next_cursor: NextCursor


class PauseDestination(Input):
    """Which destination, how long, why."""

    destination: _Place
    seconds: Annotated[float, Meta(gt=0, le=DURATION_S_MAX)]
    why: Annotated[str, Meta(min_length=1, max_length=150)] = "by hand"


class ResumeDestination(Input):
    """Which destination."""

    destination: _Place


class DestinationChanged(Output):
    """The destination, and until when it is paused now."""

    destination: str
    until: Moment | None


class SourceAddress(Output):
    """A source address today (UTC)."""

    pool: str
    address: Annotated[str, Meta(description="Empty: whatever the system picks.")]
    hello: str
    weight: int
    plan: Annotated[str, Meta(description="Its warm-up; empty: it is warm.")]
    day: Annotated[int, Meta(description="Of its warm-up, lost days not counted.")]
    ceilings: Annotated[
        dict[str, int | None], Meta(description="Mails of today by receiver; null: no ceiling.")
    ]
    mails: int
    answers: int
    bad: Annotated[int, Meta(description="Answers about our reputation.")]
    paused_until: date | None
    why: str


class SourceList(Output):
    """All source addresses, pool by pool."""

    items: list[SourceAddress]


def _item(one: Destination) -> DestinationItem:
    return DestinationItem(
        destination=one.place,
        source=one.source,
        receiver=one.receiver,
        mode=one.mode.value,
        share=one.share,
        rate_per_s=one.rate_per_s,
        connections=one.connections,
        connections_most=one.connections_most,
        workers=one.workers,
        until=one.until,
        why=one.why,
        accepted=one.accepted,
        later=one.later,
        never=one.never,
        unknown=one.unknown,
        answers=[DestinationAnswer(said.at, said.text, said.outcome) for said in one.answers],
        updated_at=one.updated_at,
    )


def _event(one: Happening) -> DestinationEvent:
    return DestinationEvent(
        at=one.at,
        destination=one.place,
        source=one.source,
        kind=one.kind,
        rule=one.rule,
        answer=one.answer,
        share=one.share,
        until=one.until,
        text=one.text,
    )


async def list_destinations(call: Call[None, DestinationsQuery]) -> DestinationPage:
    await call.app.workspaces.require_operator(call.workspace_id)
    query = call.query
    if "\0" in query.search:
        raise InvalidInput("a name has no NUL in it", field="search")
    found = await call.app.shaping.page(
        after=read_names(query.cursor, 1)[0],
        search=query.search,
        held=query.held,
        limit=query.limit,
    )
    full = len(found) >= query.limit
    return DestinationPage(
        items=[_item(one) for one in found],
        next_cursor=write_names(found[-1].key) if full else None,
    )


async def list_events(call: Call[None, PageQuery]) -> DestinationEventPage:
    await call.app.workspaces.require_operator(call.workspace_id)
    query = call.query
    found = await call.app.shaping.happenings(before=read_cursor(query.cursor), limit=query.limit)
    return page_of(DestinationEventPage, found, _event, query.limit)


async def pause_destination(call: Call[PauseDestination, None]) -> Answer:
    await call.app.workspaces.require_operator(call.workspace_id)
    body = call.body
    async with call.app.database.transaction() as tx:
        before, until = await call.app.shaping.pause(body.destination, body.seconds, body.why, tx)
        after = {"until": until.isoformat(), "why": body.why}
        change = Change("destination.pause", body.destination, before, after)
        return await call.done(tx, DestinationChanged(body.destination, until), change)


async def resume_destination(call: Call[ResumeDestination, None]) -> Answer:
    await call.app.workspaces.require_operator(call.workspace_id)
    body = call.body
    async with call.app.database.transaction() as tx:
        before = await call.app.shaping.resume(body.destination, tx)
        change = Change("destination.resume", body.destination, before, {"until": None})
        return await call.done(tx, DestinationChanged(body.destination, None), change)


async def list_sources(call: Call[None, None]) -> SourceList:
    await call.app.workspaces.require_operator(call.workspace_id)
    return SourceList(
        items=[
            SourceAddress(
                pool=name,
                address=one.name,
                hello=one.hello,
                weight=one.weight,
                plan=one.plan,
                day=one.day,
                ceilings=one.ceilings,
                mails=one.mails,
                answers=one.answers,
                bad=one.bad,
                paused_until=one.paused_until,
                why=one.why,
            )
            for name, pool in call.app.source_pools.items()
            for one in await pool.standings()
        ]
    )


ROUTES = (
    Route(
        "GET",
        "/v1/shaping",
        list_destinations,
        "listDestinations",
        TAG,
        "Read how each destination is written to now",
        scope.SHAPING_READ,
        answer=DestinationPage,
        query=DestinationsQuery,
        description="Connections, rate, pauses and why, the last answers. " + OPERATOR,
    ),
    Route(
        "GET",
        "/v1/shaping/events",
        list_events,
        "listDestinationEvents",
        TAG,
        "Read what happened to destinations",
        scope.SHAPING_READ,
        answer=DestinationEventPage,
        query=PageQuery,
        description="Pauses, slower times, alerts of two weeks. " + OPERATOR,
    ),
    Route(
        "POST",
        "/v1/shaping/pause",
        pause_destination,
        "pauseDestination",
        TAG,
        "Send nothing to a destination for a while",
        scope.SHAPING_WRITE,
        answer=DestinationChanged,
        body=PauseDestination,
        errors=(404,),
        description="Its mail waits. Workers follow within seconds. " + OPERATOR,
    ),
    Route(
        "POST",
        "/v1/shaping/resume",
        resume_destination,
        "resumeDestination",
        TAG,
        "Let a paused or probing destination go on",
        scope.SHAPING_WRITE,
        answer=DestinationChanged,
        body=ResumeDestination,
        errors=(404,),
        description="A smaller share of its limits grows by itself. " + OPERATOR,
    ),
    Route(
        "GET",
        "/v1/shaping/sources",
        list_sources,
        "listSourceAddresses",
        TAG,
        "Read how source addresses stand today",
        scope.SHAPING_READ,
        answer=SourceList,
        description="Warm-up, ceilings, what went, pauses. " + OPERATOR,
    ),
)
