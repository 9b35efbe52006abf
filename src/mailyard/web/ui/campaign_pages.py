"""Campaigns: made, started, paused, watched."""

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import datetime
from typing import Any
from uuid import UUID

from litestar import Response, get, post
from litestar.params import FromPath

from mailyard.access import scope
from mailyard.campaigns.campaign_value import Campaign, Following, NewCampaign, Utm
from mailyard.campaigns.preflight import Level, blocking
from mailyard.campaigns.preflight_facts import PreflightBlocked
from mailyard.campaigns.progress import Progress
from mailyard.campaigns.states import TABLE, Event, State
from mailyard.core.errors import Conflict, InvalidInput, MailyardError, NotFound
from mailyard.core.ids import CAMPAIGN, LIST, SEGMENT, TEMPLATE, parse_type_id, type_id
from mailyard.core.limits import API_PAGE_ITEMS
from mailyard.sending.local_time import instant
from mailyard.storage.database import Connection
from mailyard.web.ui.contact_pages import list_views, segment_views
from mailyard.web.ui.frame import Visit
from mailyard.web.ui.topic_pages import topic_choices

_FORM = (
    "name",
    "template_id",
    "audience",
    "sender",
    "rate_per_s",
    "list_unsubscribe",
    "send_at",
    "clock",
    "topic_id",
    "track_opens",
    "track_clicks",
    "utm_source",
    "utm_campaign",
)
_LINKS_SHOWN = 50
_LABELS = {
    Event.START: "Start",
    Event.PAUSE: "Pause",
    Event.RESUME: "Resume",
    Event.CANCEL: "Cancel",
}
_DONE = {
    Event.START: "started",
    Event.PAUSE: "paused",
    Event.RESUME: "resumed",
    Event.CANCEL: "cancelled",
}


def _view(campaign: Campaign, progress: Progress) -> dict[str, Any]:
    finished = campaign.state is State.FINISHED
    return {
        "id": type_id(CAMPAIGN, campaign.id),
        "name": campaign.name,
        "state": progress.state.value,
        "sender": campaign.sender,
        "template_id": type_id(TEMPLATE, campaign.template_id),
        "template_version": campaign.template_version,
        "rate_per_s": campaign.rate_per_s,
        "list_unsubscribe": campaign.list_unsubscribe,
        "send_at": campaign.send_at,
        "local_time": campaign.local_time,
        "created_at": campaign.created_at,
        "recipients": progress.recipients,
        "done": sum(progress.counts.values()),
        "counts": progress.counts,
        "told": [(name, count) for name, count in progress.told.items() if count],
        "states": [(state, count) for state, count in progress.counts.items() if count]
        + ([("queued", progress.waiting)] if progress.waiting and not finished else []),
        "rate_now": progress.rate_per_s,
        "estimated_end": progress.ends_at if progress.state is State.RUNNING else None,
    }


async def _page(visit: Visit) -> dict[str, Any]:
    service, workspace_id = visit.application.campaigns, visit.principal.workspace_id
    text = visit.ask("before")
    found = await service.page(
        workspace_id, before=parse_type_id(CAMPAIGN, text, "before") if text else None
    )
    views = [_view(item, await service.progress(workspace_id, item.id)) for item in found]
    following = f"/campaigns?before={views[-1]['id']}" if len(found) == API_PAGE_ITEMS else None
    return {"campaigns": views, "next_url": following}


@get("/campaigns")
async def campaigns(visit: Visit) -> Response[str]:
    visit.principal.require(scope.CAMPAIGNS_READ)
    return visit.page("campaigns.html", **await _page(visit))


@get("/fragments/campaigns")
async def campaign_rows(visit: Visit) -> Response[str]:
    visit.principal.require(scope.CAMPAIGNS_READ)
    return visit.fragment("_campaigns.html", **await _page(visit))


async def _form_page(
    visit: Visit, form: dict[str, str], problem: str | None = None
) -> Response[str]:
    templates = await visit.application.templates.list(visit.principal.workspace_id)
    return visit.page(
        "campaign_new.html",
        status=422 if problem else 200,
        form=form,
        templates=[{"id": type_id(TEMPLATE, line.id), "name": line.name} for line in templates],
        lists=await list_views(visit),
        topics=await topic_choices(visit),
        segments=await segment_views(visit),
        problem=problem,
    )


@get("/campaigns/new")
async def new_campaign(visit: Visit) -> Response[str]:
    visit.principal.require(scope.CAMPAIGNS_WRITE)
    imprint = await visit.application.imprints.get(visit.principal.workspace_id)
    usual = {
        "track_opens": "on" if imprint.track_opens else "",
        "track_clicks": "on" if imprint.track_clicks else "",
    }
    return await _form_page(visit, {**dict.fromkeys(_FORM, ""), **usual})


def _rate(text: str) -> float | None:
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        raise InvalidInput("a number of mails a second", field="rate_per_s") from None


async def _when(visit: Visit, form: dict[str, str]) -> dict[str, Any]:
    """The field of the time that was chosen: on the recipients' clocks, or on the workspace's."""
    text = form["send_at"]
    if not text or form["clock"] == "recipient":
        return {"local_time": text or None}
    try:
        local = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput("a time like 2026-12-24T09:00", field="send_at") from None
    limits = await visit.application.allowances.of(visit.principal.workspace_id)
    return {"send_at": instant(local.replace(tzinfo=None), limits.zone)}


@post("/campaigns", status_code=303)
async def make_campaign(visit: Visit) -> Response[Any]:
    visit.principal.require(scope.CAMPAIGNS_WRITE)
    form = {name: visit.field(name) for name in _FORM}
    try:
        new = NewCampaign(
            name=form["name"],
            list=None if form["audience"].startswith(SEGMENT) else form["audience"],
            segment=form["audience"] if form["audience"].startswith(SEGMENT) else None,
            template=form["template_id"],
            sender=form["sender"],
            list_unsubscribe=form["list_unsubscribe"],
            rate_per_s=_rate(form["rate_per_s"]),
            **await _when(visit, form),
            topic=form["topic_id"] or None,
            track=Following(opens=form["track_opens"] == "on", clicks=form["track_clicks"] == "on"),
            utm=Utm(source=form["utm_source"], campaign=form["utm_campaign"]),
        )
        async with visit.application.database.transaction() as tx:
            made = await visit.application.campaigns.create(visit.principal.workspace_id, new, tx)
            shown = type_id(CAMPAIGN, made.id)
            await visit.application.audit.record(
                visit.principal.actor, "campaign.create", shown, after={"name": made.name}, tx=tx
            )
    except MailyardError as error:
        said = f"{error.field}: {error.message}" if error.field else error.message
        return await _form_page(visit, form, said)
    return visit.go(f"/campaigns/{shown}", "made")


async def _audience(visit: Visit, found: Campaign) -> dict[str, str | None]:
    """Who gets the campaign: kind, name and where it is shown."""
    application, workspace_id = visit.application, visit.principal.workspace_id
    kind, shown, link = "List", "", None
    try:
        if found.list_id is not None:
            shown = type_id(LIST, found.list_id)
            name = (await application.lists.get(workspace_id, found.list_id)).name
            link = f"/contacts?list={shown}"
        else:
            assert found.segment_id is not None, "a campaign has a list or a segment"
            kind, shown = "Segment", type_id(SEGMENT, found.segment_id)
            name = (await application.segments.get(workspace_id, found.segment_id)).name
            link = f"/segments/{shown}"
    except NotFound:
        name = f"{shown} (deleted)"
    return {"kind": kind, "name": name, "link": link}


async def _campaign_page(
    visit: Visit, campaign_id: UUID, problem: str | None = None
) -> Response[str]:
    workspace_id, application = visit.principal.workspace_id, visit.application
    found = await application.campaigns.get(workspace_id, campaign_id)
    progress = await application.campaigns.progress(workspace_id, campaign_id)
    template = await application.templates.get(workspace_id, found.template_id)
    topic_name = "–"
    if found.topic_id is not None:
        topic_name = (await application.topics.get(workspace_id, found.topic_id)).name
    followed = [
        word for word, on in (("opens", found.track_opens), ("clicks", found.track_clicks)) if on
    ]
    view = {
        **_view(found, progress),
        "template_name": template.name,
        "audience": await _audience(visit, found),
        "topic_name": topic_name,
        "followed": " and ".join(followed) or "nothing",
        "utm": found.utm,
    }
    return visit.page(
        "campaign.html",
        status=422 if problem else 200,
        campaign=view,
        tracking=await _tracking_view(visit, found, progress),
        actions=[(event.value, _LABELS[event]) for event in TABLE[found.state] if event in _LABELS],
        problem=problem,
    )


async def _tracking_view(visit: Visit, found: Campaign, progress: Progress) -> dict[str, Any]:
    report, workspace_id = visit.application.tracking_report, visit.principal.workspace_id
    return {
        **asdict(await report.totals(workspace_id, found.id)),
        "accepted": progress.counts["accepted"],
        "links": await report.links(workspace_id, found.id, limit=_LINKS_SHOWN),
    }


@get("/fragments/campaigns/{campaign_id:str}/tracking")
async def campaign_tracking(visit: Visit, campaign_id: FromPath[str]) -> Response[str]:
    visit.principal.require(scope.CAMPAIGNS_READ)
    service, workspace_id = visit.application.campaigns, visit.principal.workspace_id
    found = await service.get(workspace_id, parse_type_id(CAMPAIGN, campaign_id))
    progress = await service.progress(workspace_id, found.id)
    view = await _tracking_view(visit, found, progress)
    return visit.fragment("_campaign_tracking.html", tracking=view)


@get("/campaigns/{campaign_id:str}")
async def campaign(visit: Visit, campaign_id: FromPath[str]) -> Response[str]:
    visit.principal.require(scope.CAMPAIGNS_READ)
    return await _campaign_page(visit, parse_type_id(CAMPAIGN, campaign_id))


@get("/fragments/campaigns/{campaign_id:str}")
async def campaign_part(visit: Visit, campaign_id: FromPath[str]) -> Response[str]:
    visit.principal.require(scope.CAMPAIGNS_READ)
    service, workspace_id = visit.application.campaigns, visit.principal.workspace_id
    identifier = parse_type_id(CAMPAIGN, campaign_id)
    found = await service.get(workspace_id, identifier)
    progress = await service.progress(workspace_id, identifier)
    return visit.fragment("_campaign.html", campaign=_view(found, progress))


@get("/campaigns/{campaign_id:str}/preflight")
async def preflight(visit: Visit, campaign_id: FromPath[str]) -> Response[str]:
    visit.principal.require(scope.CAMPAIGNS_READ)
    workspace_id, identifier = visit.principal.workspace_id, parse_type_id(CAMPAIGN, campaign_id)
    found = await visit.application.campaigns.get(workspace_id, identifier)
    items = await visit.application.preflights.campaign(workspace_id, identifier)
    order = list(reversed(Level))
    return visit.page(
        "preflight.html",
        campaign={"id": campaign_id, "name": found.name, "is_draft": found.state is State.DRAFT},
        items=sorted(items, key=lambda item: order.index(item.level)),
        blocked=bool(blocking(items)),
    )


@post("/campaigns/{campaign_id:str}/{action:str}", status_code=303)
async def move(visit: Visit, campaign_id: FromPath[str], action: FromPath[str]) -> Response[Any]:
    visit.principal.require(scope.CAMPAIGNS_WRITE)
    service, workspace_id = visit.application.campaigns, visit.principal.workspace_id
    moves: dict[str, Callable[[UUID, UUID, Connection], Awaitable[Campaign]]] = {
        Event.START: service.start,
        Event.PAUSE: service.pause,
        Event.RESUME: service.resume,
        Event.CANCEL: service.cancel,
    }
    if action not in moves:
        raise NotFound(f"a campaign has no action {action[:40]!r}")
    identifier = parse_type_id(CAMPAIGN, campaign_id)
    forced: tuple[str, ...] = ()
    try:
        if action == Event.START:
            forced = await visit.application.preflights.clear_to_start(
                workspace_id, identifier, force=visit.field("force") == "1"
            )
        async with visit.application.database.transaction() as tx:
            before = await service.hold(workspace_id, identifier, tx)
            after = await moves[action](workspace_id, identifier, tx)
            await visit.application.audit.record(
                visit.principal.actor,
                f"campaign.{action}",
                campaign_id,
                {"state": before.value},
                {"state": after.state.value, **({"forced": list(forced)} if forced else {})},
                tx,
            )
    except PreflightBlocked:
        return visit.go(f"/campaigns/{campaign_id}/preflight", "blocked")
    except (Conflict, InvalidInput) as error:
        return await _campaign_page(visit, identifier, error.message)
    await service.tell(workspace_id, identifier)
    done = "scheduled" if after.state is State.SCHEDULED else _DONE[Event(action)]
    return visit.go(f"/campaigns/{campaign_id}", done)


HANDLERS = [
    campaigns,
    campaign_rows,
    new_campaign,
    make_campaign,
    campaign,
    campaign_part,
    preflight,
    campaign_tracking,
    move,
]
