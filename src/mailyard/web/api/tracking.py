"""Tracking: what came of a campaign, names that links go by, and what mail says of its sender."""

from typing import Annotated, Any

from msgspec import Meta

from mailyard.access import scope
from mailyard.access.audit import Change
from mailyard.core import ids
from mailyard.sending.imprint import ADDRESS_CHARACTERS, FOOTER_CHARACTERS, SenderImprint
from mailyard.sending.track.domain import TrackingDomain
from mailyard.sending.track.link import LinkCount
from mailyard.web.api.page import (
    Input,
    LinkId,
    Moment,
    NextCursor,
    Output,
    PageQuery,
    TrackingDomainId,
    page_of,
    read_cursor,
)
from mailyard.web.api.route import Answer, Call, Route

TAG = "Tracking"


class CampaignTracking(Output):
    """What came of a campaign. People and machines are counted apart."""

    opened: Annotated[int, Meta(description="Recipients who opened it, each once.")]
    clicked: Annotated[int, Meta(description="Recipients who followed a link, each once.")]
    unsubscribed: Annotated[int, Meta(description="Recipients who unsubscribed through it.")]
    opens: Annotated[int, Meta(description="Opens by people.")]
    clicks: Annotated[int, Meta(description="Clicks by people.")]
    machine_opens: Annotated[
        int, Meta(description="Opens by proxies that load every image, and the like.")
    ]
    machine_clicks: Annotated[int, Meta(description="Clicks by link scanners, and the like.")]


class LinkItem(Output):
    """A link of a campaign."""

    id: LinkId
    url: str
    pattern: Annotated[bool, Meta(description="It has variables: each recipient has his own.")]
    clicks: Annotated[int, Meta(description="By people.")]
    machine_clicks: int
    created_at: Moment


class LinkPage(Output):
    """The links of a campaign."""

    items: list[LinkItem]
    next_cursor: NextCursor


class NewTrackingDomain(Input):
    """A name that tracking links go by."""

    name: Annotated[str, Meta(min_length=1, max_length=255, examples=["click.example.org"])]


class TrackingDomainItem(Output):
    """A name that tracking links go by."""

    id: TrackingDomainId
    name: str
    target: Annotated[str, Meta(description="What its CNAME record has to point to.")]
    verified: Annotated[bool, Meta(description="In use: mail that leaves now has links with it.")]
    finding: Annotated[
        str, Meta(description="What is wrong in DNS; empty when nothing is, or nobody has looked.")
    ]
    looked_at: Moment | None
    created_at: Moment


class TrackingDomainPage(Output):
    """Tracking domains, newest first."""

    items: list[TrackingDomainItem]
    next_cursor: NextCursor


_Address = Annotated[
    str,
    Meta(
        max_length=ADDRESS_CHARACTERS,
        description="The sender's postal address: `{{ physical_address }}` in templates.",
    ),
]
_Footer = Annotated[
    str,
    Meta(
        max_length=FOOTER_CHARACTERS,
        description="`{{ footer }}` in templates; at the end of those that have no such slot. It "
        "may hold `{{ unsubscribe_url }}`, `{{ preferences_url }}` and `{{ physical_address }}`.",
    ),
]


class ImprintChange(Input):
    """What the workspace's campaigns say of their sender, in the place of all that stood."""

    physical_address: _Address = ""
    footer_html: _Footer = ""
    footer_text: _Footer = ""
    track_opens: Annotated[bool, Meta(description="Of campaigns that do not say.")] = False
    track_clicks: Annotated[bool, Meta(description="Of campaigns that do not say.")] = False


class ImprintItem(Output):
    """What the workspace's campaigns say of their sender."""

    physical_address: str
    footer_html: str
    footer_text: str
    track_opens: bool
    track_clicks: bool


def _link(one: LinkCount) -> LinkItem:
    return LinkItem(
        id=ids.type_id(ids.LINK, one.id),
        url=one.url,
        pattern=one.pattern,
        clicks=one.clicks,
        machine_clicks=one.machine_clicks,
        created_at=one.created_at,
    )


async def get_campaign_tracking(call: Call[None, None]) -> CampaignTracking:
    campaign = await call.app.campaigns.get(call.workspace_id, call.ids["campaign_id"])
    totals = await call.app.tracking_report.totals(call.workspace_id, campaign.id)
    return CampaignTracking(
        opened=totals.opened,
        clicked=totals.clicked,
        unsubscribed=totals.unsubscribed,
        opens=totals.opens,
        clicks=totals.clicks,
        machine_opens=totals.machine_opens,
        machine_clicks=totals.machine_clicks,
    )


async def list_campaign_links(call: Call[None, PageQuery]) -> LinkPage:
    campaign = await call.app.campaigns.get(call.workspace_id, call.ids["campaign_id"])
    found = await call.app.tracking_report.links(
        call.workspace_id,
        campaign.id,
        after=read_cursor(call.query.cursor),
        limit=call.query.limit,
    )
    return page_of(LinkPage, found, _link, call.query.limit)


def _domain(call: Call[Any, Any], one: TrackingDomain) -> TrackingDomainItem:
    return TrackingDomainItem(
        id=ids.type_id(ids.TRACKING_DOMAIN, one.id),
        name=one.name,
        target=call.app.tracking_domains.target,
        verified=one.verified,
        finding=one.finding,
        looked_at=one.looked_at,
        created_at=one.created_at,
    )


def _change(action: str, one: TrackingDomain, before: Any, after: Any) -> Change:
    return Change(action, ids.type_id(ids.TRACKING_DOMAIN, one.id), before, after)


def _told(one: TrackingDomain) -> dict[str, Any]:
    return {"name": one.name, "verified": one.verified, "finding": one.finding}


async def create_tracking_domain(call: Call[NewTrackingDomain, None]) -> Answer:
    async with call.app.database.transaction() as tx:
        one = await call.app.tracking_domains.create(call.workspace_id, call.body.name, tx)
        made = _change("tracking_domain.create", one, None, _told(one))
        return await call.done(tx, _domain(call, one), made)


async def list_tracking_domains(call: Call[None, PageQuery]) -> TrackingDomainPage:
    found = await call.app.tracking_domains.page(
        call.workspace_id, before=read_cursor(call.query.cursor), limit=call.query.limit
    )
    return page_of(TrackingDomainPage, found, lambda one: _domain(call, one), call.query.limit)


async def get_tracking_domain(call: Call[None, None]) -> TrackingDomainItem:
    one = await call.app.tracking_domains.get(call.workspace_id, call.ids["tracking_domain_id"])
    return _domain(call, one)


async def check_tracking_domain(call: Call[None, None]) -> Answer:
    domains, domain_id = call.app.tracking_domains, call.ids["tracking_domain_id"]
    before = await domains.get(call.workspace_id, domain_id)
    finding = await domains.look(before, call.app.fresh_dns)
    async with call.app.database.transaction() as tx:
        after = await domains.note(call.workspace_id, domain_id, finding, tx)
        checked = _change("tracking_domain.check", after, _told(before), _told(after))
        return await call.done(tx, _domain(call, after), checked)


async def remove_tracking_domain(call: Call[None, None]) -> Answer:
    async with call.app.database.transaction() as tx:
        one = await call.app.tracking_domains.remove(
            call.workspace_id, call.ids["tracking_domain_id"], tx
        )
        gone = _change("tracking_domain.remove", one, _told(one), None)
        return await call.done(tx, None, gone)


def _imprint(one: SenderImprint) -> ImprintItem:
    return ImprintItem(
        physical_address=one.physical_address,
        footer_html=one.footer_html,
        footer_text=one.footer_text,
        track_opens=one.track_opens,
        track_clicks=one.track_clicks,
    )


def _fields(one: SenderImprint) -> dict[str, Any]:
    return {
        "physical_address": one.physical_address,
        "footer_html": one.footer_html,
        "footer_text": one.footer_text,
        "track_opens": one.track_opens,
        "track_clicks": one.track_clicks,
    }


async def get_imprint(call: Call[None, None]) -> ImprintItem:
    return _imprint(await call.app.imprints.get(call.workspace_id))


async def change_imprint(call: Call[ImprintChange, None]) -> Answer:
    body = call.body
    after = SenderImprint(
        physical_address=body.physical_address,
        footer_html=body.footer_html,
        footer_text=body.footer_text,
        track_opens=body.track_opens,
        track_clicks=body.track_clicks,
    )
    async with call.app.database.transaction() as tx:
        before = await call.app.imprints.get(call.workspace_id, tx)
        await call.app.imprints.save(call.workspace_id, after, tx)
        subject = ids.type_id(ids.WORKSPACE, call.workspace_id)
        changed = Change("imprint.change", subject, _fields(before), _fields(after))
        return await call.done(tx, _imprint(after), changed)


ROUTES = (
    Route(
        "GET",
        "/v1/campaigns/{campaign_id:cmp}/tracking",
        get_campaign_tracking,
        "getCampaignTracking",
        TAG,
        "Read what came of a campaign",
        scope.CAMPAIGNS_READ,
        answer=CampaignTracking,
        description="What machines did is counted apart; the story of a delivery names the rule.",
    ),
    Route(
        "GET",
        "/v1/campaigns/{campaign_id:cmp}/links",
        list_campaign_links,
        "listCampaignLinks",
        TAG,
        "List the links of a campaign",
        scope.CAMPAIGNS_READ,
        answer=LinkPage,
        query=PageQuery,
    ),
    Route(
        "POST",
        "/v1/tracking-domains",
        create_tracking_domain,
        "createTrackingDomain",
        TAG,
        "Add a name for tracking links",
        scope.DOMAINS_WRITE,
        status=201,
        answer=TrackingDomainItem,
        body=NewTrackingDomain,
        description="A CNAME to `target`, under a sending domain whose DKIM records are seen. It "
        "is in use once it is checked.",
    ),
    Route(
        "GET",
        "/v1/tracking-domains",
        list_tracking_domains,
        "listTrackingDomains",
        TAG,
        "List names for tracking links",
        scope.DOMAINS_READ,
        answer=TrackingDomainPage,
        query=PageQuery,
    ),
    Route(
        "GET",
        "/v1/tracking-domains/{tracking_domain_id:tdm}",
        get_tracking_domain,
        "getTrackingDomain",
        TAG,
        "Read a name for tracking links",
        scope.DOMAINS_READ,
        answer=TrackingDomainItem,
    ),
    Route(
        "POST",
        "/v1/tracking-domains/{tracking_domain_id:tdm}/check",
        check_tracking_domain,
        "checkTrackingDomain",
        TAG,
        "Look at its CNAME in DNS now",
        scope.DOMAINS_WRITE,
        answer=TrackingDomainItem,
        errors=(409,),
        idempotency="none",
    ),
    Route(
        "DELETE",
        "/v1/tracking-domains/{tracking_domain_id:tdm}",
        remove_tracking_domain,
        "removeTrackingDomain",
        TAG,
        "Remove a name for tracking links",
        scope.DOMAINS_WRITE,
        status=204,
        description="Links that were sent with it lead nowhere any more.",
    ),
    Route(
        "GET",
        "/v1/imprint",
        get_imprint,
        "getImprint",
        TAG,
        "Read what campaigns say of their sender",
        scope.CAMPAIGNS_READ,
        answer=ImprintItem,
    ),
    Route(
        "PUT",
        "/v1/imprint",
        change_imprint,
        "changeImprint",
        TAG,
        "Say what campaigns say of their sender",
        scope.CAMPAIGNS_WRITE,
        answer=ImprintItem,
        body=ImprintChange,
    ),
)
