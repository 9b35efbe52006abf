"""Own receiving domains: proof, MX, and the routes of mail that is no inbox's."""

# ruff: noqa: RUF012 (msgspec copies a default that is a list)

from typing import Annotated, Any

from msgspec import Meta

from mailyard.access import scope
from mailyard.access.audit import Change
from mailyard.core import ids, limits
from mailyard.receiving import elsewhere
from mailyard.receiving.domain import ReceivingDomain
from mailyard.receiving.domain_route import FORWARDS_PER_ROUTE, InboundRoute, NewRoute
from mailyard.receiving.pattern import PATTERN_CHARACTERS
from mailyard.receiving.policy import ENTRIES_MAX, GREYLIST_MAX_S, MailPolicy
from mailyard.web.api.page import (
    InboundRouteId,
    InboxId,
    Input,
    Moment,
    NextCursor,
    Output,
    PageQuery,
    ReceivingDomainId,
    page_of,
    read_cursor,
)
from mailyard.web.api.route import Answer, Call, Route

TAG = "Receiving domains"

_Entry = Annotated[str, Meta(min_length=1, max_length=320)]
_Address = Annotated[str, Meta(min_length=3, max_length=320)]


class NewReceivingDomain(Input):
    """A domain to receive for."""

    name: Annotated[str, Meta(min_length=1, max_length=255, examples=["example.org"])]


class ReceivingDomainChange(Input):
    """What of a receiving domain can be changed."""

    plus: Annotated[bool, Meta(description="Whether ada+anything leads where ada does.")]


class ReceivingDomainItem(Output):
    """A domain that the workspace receives for."""

    id: ReceivingDomainId
    name: str
    proved: Annotated[bool, Meta(description="Whether it is shown to be yours; it receives then.")]
    proof_name: Annotated[str, Meta(description="Where the TXT record has to stand.")]
    proof_text: Annotated[str, Meta(description="What the TXT record has to say.")]
    finding: Annotated[str, Meta(description="What is wrong with it; empty when nothing is.")]
    mx_host: Annotated[str, Meta(description="Where the domain's MX record has to point.")]
    mx_state: Annotated[
        str, Meta(description="`good`, `missing`, `wrong`, `unknown` or `unchecked`.")
    ]
    mx_finding: Annotated[str, Meta(description="What is wrong with it; empty when nothing is.")]
    plus: bool
    checked_at: Moment | None
    created_at: Moment


class ReceivingDomainPage(Output):
    """Receiving domains, newest first."""

    items: list[ReceivingDomainItem]
    next_cursor: NextCursor


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


class NewReservedAddresses(Input):
    """Addresses to hold for this workspace."""

    addresses: Annotated[list[_Address], Meta(min_length=1, max_length=limits.INBOXES_PER_BATCH)]


class ReservedQuery(Input):
    """Which reserved addresses to list."""

    after: Annotated[str, Meta(max_length=320, description="Those after this address.")] = ""
    limit: Annotated[int, Meta(ge=1, le=limits.API_PAGE_ITEMS_MAX)] = limits.API_PAGE_ITEMS


class ReservedAddressList(Output):
    """Addresses that nobody else can have an inbox at, in order."""

    items: list[str]


def item(one: ReceivingDomain, host: str) -> ReceivingDomainItem:
    """A domain as the API shows it."""
    return ReceivingDomainItem(
        id=ids.type_id(ids.RECEIVING_DOMAIN, one.id),
        name=one.name,
        proved=one.proved_at is not None,
        proof_name=one.proof_name,
        proof_text=one.proof_text,
        finding=one.finding,
        mx_host=host,
        mx_state=one.mx_state,
        mx_finding=one.mx_finding,
        plus=one.plus,
        checked_at=one.checked_at,
        created_at=one.created_at,
    )


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


def told(one: ReceivingDomain) -> dict[str, Any]:
    """A domain as the audit log keeps it."""
    return {"name": one.name, "proved": one.proved_at is not None, "plus": one.plus}


def told_route(one: InboundRoute) -> dict[str, Any]:
    """A route as the audit log keeps it."""
    return {
        "pattern": one.pattern,
        "action": one.action,
        "inbox": one.address,
        "forward_to": list(one.forward_to),
        "position": one.position,
    }


def _changed(action: str, one: ReceivingDomain, before: Any, after: Any) -> Change:
    return Change(action, ids.type_id(ids.RECEIVING_DOMAIN, one.id), before, after)


def _routed(action: str, one: InboundRoute, before: Any, after: Any) -> Change:
    return Change(action, ids.type_id(ids.INBOUND_ROUTE, one.id), before, after)


async def create_domain(call: Call[NewReceivingDomain, None]) -> Answer:
    domains = call.app.receiving_domains
    async with call.app.database.transaction() as tx:
        one = await domains.create(call.workspace_id, call.body.name, tx)
        made = _changed("receiving_domain.create", one, None, told(one))
        return await call.done(tx, item(one, domains.host), made)


async def list_domains(call: Call[None, PageQuery]) -> ReceivingDomainPage:
    query, domains = call.query, call.app.receiving_domains
    found = await domains.page(
        call.workspace_id, before=read_cursor(query.cursor), limit=query.limit
    )
    return page_of(ReceivingDomainPage, found, lambda one: item(one, domains.host), query.limit)


async def get_domain(call: Call[None, None]) -> ReceivingDomainItem:
    domains = call.app.receiving_domains
    return item(await domains.get(call.workspace_id, call.ids["domain_id"]), domains.host)


async def check_domain(call: Call[None, None]) -> Answer:
    domains = call.app.receiving_domains
    before = await domains.get(call.workspace_id, call.ids["domain_id"])
    look = await domains.look(before, call.app.fresh_dns)
    async with call.app.database.transaction() as tx:
        after = await domains.note(call.workspace_id, before.id, look, tx)
        checked = _changed("receiving_domain.check", after, told(before), told(after))
        answer = await call.done(tx, item(after, domains.host), checked)
    call.app.bus.announce(elsewhere.TOPIC)
    return answer


async def change_domain(call: Call[ReceivingDomainChange, None]) -> Answer:
    domains, domain_id = call.app.receiving_domains, call.ids["domain_id"]
    async with call.app.database.transaction() as tx:
        before = await domains.get(call.workspace_id, domain_id, tx)
        after = await domains.set_plus(call.workspace_id, domain_id, call.body.plus, tx)
        changed = _changed("receiving_domain.change", after, told(before), told(after))
        answer = await call.done(tx, item(after, domains.host), changed)
    call.app.bus.announce(elsewhere.TOPIC)
    return answer


async def remove_domain(call: Call[None, None]) -> Answer:
    domain_id = call.ids["domain_id"]
    async with call.app.database.transaction() as tx:
        await call.app.inbound_routes.remove_all(call.workspace_id, domain_id, tx)
        one = await call.app.receiving_domains.remove(call.workspace_id, domain_id, tx)
        removed = _changed("receiving_domain.remove", one, told(one), None)
        answer = await call.done(tx, None, removed)
    call.app.bus.announce(elsewhere.TOPIC)
    return answer


async def create_route(call: Call[NewInboundRoute, None]) -> Answer:
    body = call.body
    async with call.app.database.transaction() as tx:
        domain = await call.app.receiving_domains.get(call.workspace_id, call.ids["domain_id"], tx)
        wanted = NewRoute(body.pattern, body.action, body.inbox, tuple(body.forward_to))
        one = await call.app.inbound_routes.create(domain, wanted, tx)
        made = _routed("inbound_route.create", one, None, told_route(one))
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
        placed = _routed("inbound_route.place", after, told_route(before), told_route(after))
        answer = await call.done(tx, _route(after), placed)
    call.app.bus.announce(elsewhere.TOPIC)
    return answer


async def remove_route(call: Call[None, None]) -> Answer:
    async with call.app.database.transaction() as tx:
        one = await call.app.inbound_routes.remove(call.workspace_id, call.ids["route_id"], tx)
        removed = _routed("inbound_route.remove", one, told_route(one), None)
        answer = await call.done(tx, None, removed)
    call.app.bus.announce(elsewhere.TOPIC)
    return answer


async def reserve_addresses(call: Call[NewReservedAddresses, None]) -> Answer:
    async with call.app.database.transaction() as tx:
        held = await call.app.reservations.reserve(call.workspace_id, call.body.addresses, tx)
        changes = [Change("address.reserve", address, None, {}) for address in held]
        return await call.done(tx, ReservedAddressList(items=held), *changes)


async def list_reserved(call: Call[None, ReservedQuery]) -> ReservedAddressList:
    query = call.query
    found = await call.app.reservations.list(call.workspace_id, query.after, query.limit)
    return ReservedAddressList(items=found)


async def release_addresses(call: Call[NewReservedAddresses, None]) -> Answer:
    async with call.app.database.transaction() as tx:
        gone = await call.app.reservations.release(call.workspace_id, call.body.addresses, tx)
        changes = [Change("address.release", address, {}, None) for address in gone]
        return await call.done(tx, ReservedAddressList(items=gone), *changes)


class MailPolicyBody(Input):
    """Whom this workspace takes mail from. Entries are networks (192.0.2.0/24), addresses, or
    domains with all below them."""

    allowed: Annotated[
        list[_Entry], Meta(max_length=ENTRIES_MAX, description="Nothing below holds for these.")
    ] = []
    blocked: Annotated[
        list[_Entry], Meta(max_length=ENTRIES_MAX, description="Refused: 550 5.7.1.")
    ] = []
    source_per_minute: (
        Annotated[
            int,
            Meta(
                ge=1,
                le=1_000_000,
                description="Recipients a minute that one network may name: 451.",
            ),
        ]
        | None
    ) = None
    greylist_s: (
        Annotated[
            int,
            Meta(
                ge=1, le=GREYLIST_MAX_S, description="How long a stranger's first mail waits: 451."
            ),
        ]
        | None
    ) = None
    spam_tag_at: (
        Annotated[
            float,
            Meta(gt=0, le=1000, description="From these points on a mail has X-Mailyard-Spam."),
        ]
        | None
    ) = None
    spam_refuse_at: (
        Annotated[
            float, Meta(gt=0, le=1000, description="From these points on a mail is refused: 550.")
        ]
        | None
    ) = None


def _policy_item(one: MailPolicy) -> MailPolicyBody:
    return MailPolicyBody(
        list(one.allowed),
        list(one.blocked),
        one.source_per_minute,
        one.greylist_s,
        one.spam_tag_at,
        one.spam_refuse_at,
    )


def _told_policy(one: MailPolicy) -> dict[str, Any]:
    return {
        "allowed": list(one.allowed),
        "blocked": list(one.blocked),
        "source_per_minute": one.source_per_minute,
        "greylist_s": one.greylist_s,
        "spam_tag_at": one.spam_tag_at,
        "spam_refuse_at": one.spam_refuse_at,
    }


async def get_mail_policy(call: Call[None, None]) -> MailPolicyBody:
    return _policy_item(await call.app.mail_policies.get(call.workspace_id))


async def set_mail_policy(call: Call[MailPolicyBody, None]) -> Answer:
    body, policies = call.body, call.app.mail_policies
    wanted = MailPolicy(
        tuple(body.allowed),
        tuple(body.blocked),
        body.source_per_minute,
        body.greylist_s,
        body.spam_tag_at,
        body.spam_refuse_at,
    )
    async with call.app.database.transaction() as tx:
        before = await policies.get(call.workspace_id, tx)
        after = await policies.set(call.workspace_id, wanted, tx)
        subject = ids.type_id(ids.WORKSPACE, call.workspace_id)
        changed = Change("mail_policy.set", subject, _told_policy(before), _told_policy(after))
        return await call.done(tx, _policy_item(after), changed)


ROUTES = (
    Route(
        "GET",
        "/v1/mail-policy",
        get_mail_policy,
        "getMailPolicy",
        TAG,
        "Read whom this workspace takes mail from",
        scope.DOMAINS_READ,
        answer=MailPolicyBody,
    ),
    Route(
        "PUT",
        "/v1/mail-policy",
        set_mail_policy,
        "setMailPolicy",
        TAG,
        "Say whom this workspace takes mail from: lists, limits, greylisting, spam",
        scope.DOMAINS_WRITE,
        answer=MailPolicyBody,
        body=MailPolicyBody,
        description="As a whole: what is left out holds no longer. Listeners follow in seconds.",
    ),
    Route(
        "POST",
        "/v1/receiving-domains",
        create_domain,
        "createReceivingDomain",
        TAG,
        "Add a domain to receive for",
        scope.DOMAINS_WRITE,
        status=201,
        answer=ReceivingDomainItem,
        body=NewReceivingDomain,
        description="It receives once the TXT record given in the answer is seen in DNS, and gets "
        "its mail once its MX record points here.",
    ),
    Route(
        "GET",
        "/v1/receiving-domains",
        list_domains,
        "listReceivingDomains",
        TAG,
        "List receiving domains",
        scope.DOMAINS_READ,
        answer=ReceivingDomainPage,
        query=PageQuery,
    ),
    Route(
        "GET",
        "/v1/receiving-domains/{domain_id:rdm}",
        get_domain,
        "getReceivingDomain",
        TAG,
        "Read a receiving domain",
        scope.DOMAINS_READ,
        answer=ReceivingDomainItem,
    ),
    Route(
        "POST",
        "/v1/receiving-domains/{domain_id:rdm}/check",
        check_domain,
        "checkReceivingDomain",
        TAG,
        "Look at a receiving domain's proof and MX in DNS now",
        scope.DOMAINS_WRITE,
        answer=ReceivingDomainItem,
        idempotency="none",
        description="A domain that is proved stays so until another workspace proves that it is "
        "its own.",
    ),
    Route(
        "PATCH",
        "/v1/receiving-domains/{domain_id:rdm}",
        change_domain,
        "changeReceivingDomain",
        TAG,
        "Change a receiving domain",
        scope.DOMAINS_WRITE,
        answer=ReceivingDomainItem,
        body=ReceivingDomainChange,
    ),
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
    Route(
        "DELETE",
        "/v1/receiving-domains/{domain_id:rdm}",
        remove_domain,
        "removeReceivingDomain",
        TAG,
        "Stop receiving for a domain",
        scope.DOMAINS_WRITE,
        status=204,
        description="Its routes go. The inboxes under it take no mail any more, and can be read "
        "until they end.",
    ),
    Route(
        "POST",
        "/v1/reserved-addresses",
        reserve_addresses,
        "reserveAddresses",
        TAG,
        "Hold addresses, with or without an inbox",
        scope.INBOXES_WRITE,
        status=201,
        answer=ReservedAddressList,
        body=NewReservedAddresses,
        description="No other workspace can make an inbox there, also after yours has ended. "
        "All are held, or none.",
    ),
    Route(
        "GET",
        "/v1/reserved-addresses",
        list_reserved,
        "listReservedAddresses",
        TAG,
        "List the addresses that are held for this workspace",
        scope.INBOXES_READ,
        answer=ReservedAddressList,
        query=ReservedQuery,
    ),
    Route(
        "POST",
        "/v1/reserved-addresses/release",
        release_addresses,
        "releaseAddresses",
        TAG,
        "Let addresses go",
        scope.INBOXES_WRITE,
        answer=ReservedAddressList,
        body=NewReservedAddresses,
        description="The answer names those that were held.",
    ),
)
