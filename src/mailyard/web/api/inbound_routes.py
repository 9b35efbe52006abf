"""Routes of receiving domains: where mail goes that is no inbox's."""

# ruff: noqa: RUF012 (msgspec copies a default that is a list)

from typing import Annotated, Any

from msgspec import Meta

from mailyard.access import scope
from mailyard.access.audit import Change
from mailyard.core import ids
from mailyard.receiving import elsewhere
from mailyard.receiving.domain_route import FORWARDS_PER_ROUTE, InboundRoute, NewRoute
from mailyard.receiving.pattern import PATTERN_CHARACTERS
from mailyard.web.api.page import InboundRouteId, InboxId, Input, Output, ReceivingDomainId
from mailyard.web.api.route import Answer, Call, Route

TAG = "Receiving domains"
_Address = Annotated[str, Meta(min_length=3, max_length=320)]


class NewInboundRoute(Input):
    """A route to add, behind the domain's others."""

    pattern: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=PATTERN_CHARACTERS,
            description="Of the part before @: a name (an alias), with `*` for any and `?` for one "
            "letter (a pattern), or `*` alone (the catch-all, asked last).",
            examples=["sales", "support-*", "*"],
        ),
    ]
    action: Annotated[
        str,
        Meta(
            description="`inbox`: into an inbox of yours. `forward`: to other addresses. "
            "`webhook`: for an endpoint that asks for the events of the route's inbox. `drop`: "
            "taken and not kept. `refuse`: as if there were no such address."
        ),
    ]
    inbox: Annotated[
        str, Meta(max_length=320, description="For `inbox`: the address of an inbox of yours.")
    ] = ""
    forward_to: Annotated[
        list[_Address], Meta(max_length=FORWARDS_PER_ROUTE, description="For `forward`.")
    ] = []


class InboundRoutePlace(Input):
    """Where a route stands."""

    position: Annotated[int, Meta(ge=0, le=1_000_000, description="The lowest is asked first.")]


class InboundRouteItem(Output):
    """A route of a receiving domain."""

    id: InboundRouteId
    domain_id: ReceivingDomainId
    position: int
    pattern: str
    action: str
    inbox: Annotated[
        str, Meta(description="The inbox that its mail is filed in; empty where it is not kept.")
    ]
    inbox_id: Annotated[
        InboxId | None, Meta(description="That inbox, where it is the route's own.")
    ]
    forward_to: list[str]


class InboundRouteList(Output):
    """The routes of a domain, in the order in which they are asked."""

    items: list[InboundRouteItem]


def _route(one: InboundRoute) -> InboundRouteItem:
    return InboundRouteItem(
        id=ids.type_id(ids.INBOUND_ROUTE, one.id),
        domain_id=ids.type_id(ids.RECEIVING_DOMAIN, one.domain_id),
        position=one.position,
        pattern=one.pattern,
        action=one.action,
        inbox=one.address,
        inbox_id=None if one.filed_in is None else ids.type_id(ids.INBOX, one.filed_in),
        forward_to=list(one.forward_to),
    )


def told(one: InboundRoute) -> dict[str, Any]:
    """A route as the audit log keeps it."""
    return {
        "pattern": one.pattern,
        "action": one.action,
        "inbox": one.address,
        "forward_to": list(one.forward_to),
        "position": one.position,
    }


def _routed(action: str, one: InboundRoute, before: Any, after: Any) -> Change:
    return Change(action, ids.type_id(ids.INBOUND_ROUTE, one.id), before, after)


async def create_route(call: Call[NewInboundRoute, None]) -> Answer:
    body = call.body
    async with call.app.database.transaction() as tx:
        domain = await call.app.receiving_domains.get(call.workspace_id, call.ids["domain_id"], tx)
        wanted = NewRoute(body.pattern, body.action, body.inbox, tuple(body.forward_to))
        one = await call.app.inbound_routes.create(domain, wanted, tx)
        made = _routed("inbound_route.create", one, None, told(one))
        answer = await call.done(tx, _route(one), made)
    call.app.bus.announce(elsewhere.TOPIC)
    return answer


async def list_routes(call: Call[None, None]) -> InboundRouteList:
    domain = await call.app.receiving_domains.get(call.workspace_id, call.ids["domain_id"])
    found = await call.app.inbound_routes.list(call.workspace_id, domain.id)
    return InboundRouteList(items=[_route(one) for one in found])


async def get_route(call: Call[None, None]) -> InboundRouteItem:
    return _route(await call.app.inbound_routes.get(call.workspace_id, call.ids["route_id"]))


async def place_route(call: Call[InboundRoutePlace, None]) -> Answer:
    routes, route_id = call.app.inbound_routes, call.ids["route_id"]
    before = await routes.get(call.workspace_id, route_id)
    async with call.app.database.transaction() as tx:
        after = await routes.place(call.workspace_id, route_id, call.body.position, tx)
        placed = _routed("inbound_route.place", after, told(before), told(after))
        answer = await call.done(tx, _route(after), placed)
    call.app.bus.announce(elsewhere.TOPIC)
    return answer


async def remove_route(call: Call[None, None]) -> Answer:
    async with call.app.database.transaction() as tx:
        one = await call.app.inbound_routes.remove(call.workspace_id, call.ids["route_id"], tx)
        removed = _routed("inbound_route.remove", one, told(one), None)
        answer = await call.done(tx, None, removed)
    call.app.bus.announce(elsewhere.TOPIC)
    return answer


ROUTES = (
    Route(
        "POST",
        "/v1/receiving-domains/{domain_id:rdm}/routes",
        create_route,
        "createInboundRoute",
        TAG,
        "Say where mail goes that is no inbox's",
        scope.DOMAINS_WRITE,
        status=201,
        answer=InboundRouteItem,
        body=NewInboundRoute,
        description="A name goes before patterns, patterns go in their order, the catch-all last. "
        "Mail that is forwarded, or that a webhook is told of, is kept for seven days in an inbox "
        "of the route's own.",
    ),
    Route(
        "GET",
        "/v1/receiving-domains/{domain_id:rdm}/routes",
        list_routes,
        "listInboundRoutes",
        TAG,
        "List the routes of a receiving domain",
        scope.DOMAINS_READ,
        answer=InboundRouteList,
    ),
    Route(
        "GET",
        "/v1/inbound-routes/{route_id:irt}",
        get_route,
        "getInboundRoute",
        TAG,
        "Read a route",
        scope.DOMAINS_READ,
        answer=InboundRouteItem,
    ),
    Route(
        "PATCH",
        "/v1/inbound-routes/{route_id:irt}",
        place_route,
        "placeInboundRoute",
        TAG,
        "Move a route up or down",
        scope.DOMAINS_WRITE,
        answer=InboundRouteItem,
        body=InboundRoutePlace,
    ),
    Route(
        "DELETE",
        "/v1/inbound-routes/{route_id:irt}",
        remove_route,
        "removeInboundRoute",
        TAG,
        "Remove a route, and its own inbox with the mail in it",
        scope.DOMAINS_WRITE,
        status=204,
    ),
)
