"""Campaigns: a template to a list, and how far it is."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from msgspec import Meta

from mailyard.access import scope
from mailyard.access.audit import Change
from mailyard.campaigns.campaign_value import (
    NAME_CHARACTERS,
    RATE_MAX_PER_S,
    Campaign,
    Following,
    Utm,
)
from mailyard.campaigns.campaign_value import NewCampaign as Wanted
from mailyard.campaigns.states import State
from mailyard.core import ids, limits
from mailyard.sending.local_time import LOCAL_TIME
from mailyard.storage.database import Connection
from mailyard.web.api.page import (
    CampaignId,
    ListId,
    Moment,
    NextCursor,
    Output,
    PageQuery,
    SegmentId,
    TemplateId,
    TopicId,
    page_of,
    read_cursor,
)
from mailyard.web.api.preflight import StartQuery
from mailyard.web.api.route import Answer, Call, Route

TAG = "Campaigns"
_Line = Annotated[str, Meta(max_length=limits.HEADER_LINE_BYTES)]
_Rate = Annotated[float, Meta(ge=0.01, le=RATE_MAX_PER_S, description="Mails a second at most.")]


_LocalTime = Annotated[
    str,
    Meta(
        pattern="^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}$",
        description="On each recipient's own clock: the contact's attribute `timezone`, else the "
        "workspace's zone.",
        examples=["2026-12-24T09:00"],
    ),
]


class NewCampaign(
    Wanted, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"sender": "from"}
):
    """A campaign to make. Ids are TypeIDs."""

    name: Annotated[str, Meta(min_length=1, max_length=NAME_CHARACTERS)]
    template: TemplateId
    sender: Annotated[
        str, Meta(min_length=3, max_length=1000, examples=["News <news@example.org>"])
    ]
    list: Annotated[ListId, Meta(description="Who gets it: the members of this list.")] | None = (
        None
    )
    segment: (
        Annotated[SegmentId, Meta(description="Or whoever matches this segment; say one.")] | None
    ) = None
    reply_to: _Line = ""
    list_unsubscribe: Annotated[
        _Line,
        Meta(
            description="An https address of your own that unsubscribes on POST (RFC 8058). "
            "Without one Mailyard's is used."
        ),
    ] = ""
    rate_per_s: _Rate | None = None
    type: Annotated[str, Meta(pattern="^[a-z0-9][a-z0-9._-]{0,63}$")] = "campaign"
    template_version: (
        Annotated[
            int, Meta(ge=1, le=2**31 - 1, description="When not said: the one in use at the start.")
        ]
        | None
    ) = None
    topic: (
        Annotated[
            TopicId, Meta(description="What it is about: who does not want that gets no mail.")
        ]
        | None
    ) = None
    track: Annotated[
        Following,
        Meta(description="Whether opens and clicks are followed; as the imprint says by default."),
    ] = Following()
    utm: Annotated[
        Utm, Meta(description="Appended to links as `utm_source`, …, where they have none.")
    ] = Utm()
    send_at: (
        Annotated[datetime, Meta(tz=True, description="A start before this waits for it.")] | None
    ) = None
    local_time: _LocalTime | None = None


class CampaignItem(Output):
    """A campaign."""

    id: CampaignId
    name: str
    type: str
    state: State
    list: ListId | None
    segment: SegmentId | None
    template: TemplateId
    template_version: int
    sender: str = msgspec.field(name="from")
    reply_to: str
    list_unsubscribe: str
    rate_per_s: float | None
    topic: TopicId | None
    track_opens: bool
    track_clicks: bool
    utm: Annotated[str, Meta(description="What is appended to links.")]
    recipients: Annotated[int, Meta(description="Of a segment an estimate until all is planned.")]
    send_at: Moment | None
    local_time: _LocalTime | None
    created_at: Moment
    first_started_at: Moment | None
    finished_at: Moment | None


class CampaignPage(Output):
    """Campaigns, newest first."""

    items: list[CampaignItem]
    next_cursor: NextCursor


class CampaignProgress(Output):
    """How far a campaign is."""

    state: State
    recipients: int
    counts: Annotated[dict[str, int], Meta(description="Recipients by state.")]
    told: Annotated[
        dict[str, int],
        Meta(
            description="What was told of the accepted ones later: `delivered`, `bounced`, "
            "`complained`. Their deliveries say it; `counts` is of the hand-over."
        ),
    ]
    waiting: Annotated[int, Meta(description="Not handed over yet.")]
    rate_per_s: float
    ends_at: Annotated[Moment | None, Meta(description="An estimate while it runs.")]


def _item(one: Campaign) -> CampaignItem:
    return CampaignItem(
        id=ids.type_id(ids.CAMPAIGN, one.id),
        name=one.name,
        type=one.type,
        state=one.state,
        list=ids.type_id(ids.LIST, one.list_id) if one.list_id else None,
        segment=ids.type_id(ids.SEGMENT, one.segment_id) if one.segment_id else None,
        template=ids.type_id(ids.TEMPLATE, one.template_id),
        template_version=one.template_version,
        sender=one.sender,
        reply_to=one.reply_to,
        list_unsubscribe=one.list_unsubscribe,
        rate_per_s=one.rate_per_s,
        topic=ids.type_id(ids.TOPIC, one.topic_id) if one.topic_id else None,
        track_opens=one.track_opens,
        track_clicks=one.track_clicks,
        utm=one.utm,
        recipients=one.recipients,
        send_at=one.send_at,
        local_time=one.local_time.strftime(LOCAL_TIME) if one.local_time else None,
        created_at=one.created_at,
        first_started_at=one.first_started_at,
        finished_at=one.finished_at,
    )


async def create_campaign(call: Call[NewCampaign, None]) -> Answer:
    async with call.app.database.transaction() as tx:
        one = await call.app.campaigns.create(call.workspace_id, call.body, tx)
        after = {
            "name": one.name,
            "list": call.body.list,
            "segment": call.body.segment,
            "template": call.body.template,
            "from": one.sender,
        }
        made = Change("campaign.create", ids.type_id(ids.CAMPAIGN, one.id), None, after)
        return await call.done(tx, _item(one), made)


async def list_campaigns(call: Call[None, PageQuery]) -> CampaignPage:
    found = await call.app.campaigns.page(
        call.workspace_id, before=read_cursor(call.query.cursor), limit=call.query.limit
    )
    return page_of(CampaignPage, found, _item, call.query.limit)


async def get_campaign(call: Call[None, None]) -> CampaignItem:
    return _item(await call.app.campaigns.get(call.workspace_id, call.ids["campaign_id"]))


async def get_progress(call: Call[None, None]) -> CampaignProgress:
    now = await call.app.campaigns.progress(call.workspace_id, call.ids["campaign_id"])
    return CampaignProgress(
        state=now.state,
        recipients=now.recipients,
        counts=dict(now.counts),
        told=dict(now.told),
        waiting=now.waiting,
        rate_per_s=now.rate_per_s,
        ends_at=now.ends_at,
    )


Move = Callable[[UUID, UUID, Connection], Awaitable[Campaign]]


async def _move(call: Call[None, Any], word: str, move: Move, forced: Sequence[str] = ()) -> Answer:
    campaign_id, campaigns = call.ids["campaign_id"], call.app.campaigns
    async with call.app.database.transaction() as tx:
        before = await campaigns.hold(call.workspace_id, campaign_id, tx)
        after = await move(call.workspace_id, campaign_id, tx)
        moved = Change(
            f"campaign.{word}",
            ids.type_id(ids.CAMPAIGN, campaign_id),
            {"state": before},
            {"state": after.state, **({"forced": list(forced)} if forced else {})},
        )
        answer = await call.done(tx, _item(after), moved)
    await campaigns.tell(call.workspace_id, campaign_id)
    return answer


async def start_campaign(call: Call[None, StartQuery]) -> Answer:
    forced = await call.app.preflights.clear_to_start(
        call.workspace_id, call.ids["campaign_id"], force=call.query.force
    )
    return await _move(call, "start", call.app.campaigns.start, forced)


async def pause_campaign(call: Call[None, None]) -> Answer:
    return await _move(call, "pause", call.app.campaigns.pause)


async def resume_campaign(call: Call[None, None]) -> Answer:
    return await _move(call, "resume", call.app.campaigns.resume)


async def cancel_campaign(call: Call[None, None]) -> Answer:
    return await _move(call, "cancel", call.app.campaigns.cancel)


def _moving(word: str, handler: Any, summary: str, description: str, query: Any = None) -> Route:
    return Route(
        "POST",
        f"/v1/campaigns/{{campaign_id:cmp}}/{word}",
        handler,
        f"{word}Campaign",
        TAG,
        summary,
        scope.CAMPAIGNS_WRITE,
        answer=CampaignItem,
        query=query,
        description=description,
    )


ROUTES = (
    Route(
        "POST",
        "/v1/campaigns",
        create_campaign,
        "createCampaign",
        TAG,
        "Make a campaign",
        scope.CAMPAIGNS_WRITE,
        status=201,
        answer=CampaignItem,
        body=NewCampaign,
        errors=(404,),
    ),
    Route(
        "GET",
        "/v1/campaigns",
        list_campaigns,
        "listCampaigns",
        TAG,
        "List campaigns",
        scope.CAMPAIGNS_READ,
        answer=CampaignPage,
        query=PageQuery,
    ),
    Route(
        "GET",
        "/v1/campaigns/{campaign_id:cmp}",
        get_campaign,
        "getCampaign",
        TAG,
        "Read a campaign",
        scope.CAMPAIGNS_READ,
        answer=CampaignItem,
    ),
    Route(
        "GET",
        "/v1/campaigns/{campaign_id:cmp}/progress",
        get_progress,
        "getCampaignProgress",
        TAG,
        "Read how far a campaign is",
        scope.CAMPAIGNS_READ,
        answer=CampaignProgress,
    ),
    _moving(
        "start",
        start_campaign,
        "Start a campaign",
        "Its recipients are the members that the list has now, or whoever matches the segment, "
        "with days counted from now. 422 when the template asks for what contacts lack; 409 when "
        "an item of the preflight blocks and `force` is not said.",
        StartQuery,
    ),
    _moving(
        "pause",
        pause_campaign,
        "Pause a campaign",
        "What was handed over goes on; nobody else gets mail until it is resumed.",
    ),
    _moving("resume", resume_campaign, "Go on with a paused campaign", ""),
    _moving(
        "cancel",
        cancel_campaign,
        "Stop a campaign for good",
        "Whoever did not get mail yet gets none.",
    ),
)
