"""Own receiving domains: proof and MX."""

from typing import Annotated, Any

from msgspec import Meta

from mailyard.access import scope
from mailyard.access.audit import Change
from mailyard.core import ids
from mailyard.receiving import elsewhere
from mailyard.receiving.domain import ReceivingDomain
from mailyard.web.api.page import (
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


def told(one: ReceivingDomain) -> dict[str, Any]:
    """A domain as the audit log keeps it."""
    return {"name": one.name, "proved": one.proved_at is not None, "plus": one.plus}


def _changed(action: str, one: ReceivingDomain, before: Any, after: Any) -> Change:
    return Change(action, ids.type_id(ids.RECEIVING_DOMAIN, one.id), before, after)


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


ROUTES = (
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
)
