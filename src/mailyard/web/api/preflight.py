"""Preflights: what receivers ask of bulk mail, asked of a campaign or a domain before it sends."""

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta

from mailyard.access import scope
from mailyard.campaigns.preflight import Item, Level, blocking
from mailyard.web.api.page import Input, Output
from mailyard.web.api.route import Call, Route

_LEVEL = Meta(description="`pass`, `warn` or `block`.")


class PreflightItem(Output):
    """One thing that was looked at."""

    key: Annotated[str, Meta(examples=["one_click"])]
    level: Annotated[str, _LEVEL]
    message: str
    source: Annotated[str, Meta(description="Where the rule comes from.")]
    details: list[str]


class Preflight(Output):
    """What was found, and the worst of it."""

    level: Annotated[str, _LEVEL]
    items: list[PreflightItem]


class StartQuery(Input):
    """How to start."""

    force: Annotated[
        bool, Meta(description="Start although the preflight blocks; the audit log keeps what.")
    ] = False


def preflight_of(items: Sequence[Item]) -> Preflight:
    """The items as they are answered."""
    worst = Level.PASS
    if any(item.level is Level.WARN for item in items):
        worst = Level.WARN
    if blocking(items):
        worst = Level.BLOCK
    return Preflight(
        level=worst.value,
        items=[
            PreflightItem(
                key=item.key,
                level=item.level.value,
                message=item.message,
                source=item.source,
                details=list(item.details),
            )
            for item in items
        ],
    )


async def preflight_campaign(call: Call[None, None]) -> Preflight:
    return preflight_of(
        await call.app.preflights.campaign(call.workspace_id, call.ids["campaign_id"])
    )


async def preflight_domain(call: Call[None, None]) -> Preflight:
    return preflight_of(await call.app.preflights.domain(call.workspace_id, call.ids["domain_id"]))


ROUTES = (
    Route(
        "GET",
        "/v1/campaigns/{campaign_id:cmp}/preflight",
        preflight_campaign,
        "preflightCampaign",
        "Campaigns",
        "Look whether a campaign keeps the rules of receivers",
        scope.CAMPAIGNS_READ,
        answer=Preflight,
        description="Authentication, one-click unsubscribing, complaints and bounces, the list's "
        "age, the size, the links (asked with HEAD), the text part, the variables over the whole "
        "list, addresses that look like traps. A start is refused while an item blocks. Takes up "
        "to half a minute for a large list.",
    ),
    Route(
        "GET",
        "/v1/domains/{domain_id:dom}/preflight",
        preflight_domain,
        "preflightDomain",
        "Sending domains",
        "Look whether a domain keeps the rules of receivers",
        scope.DOMAINS_READ,
        answer=Preflight,
        description="By its last check, and by what came of its campaigns in the last 30 days.",
    ),
)
