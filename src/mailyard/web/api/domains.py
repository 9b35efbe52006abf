"""Sending domains: the keys that sign for them and the DNS records to publish."""

from typing import Annotated, Any

from msgspec import Meta

from mailyard.access import scope
from mailyard.access.audit import Change
from mailyard.core import ids
from mailyard.sending.domain import DkimKey, Domain, fresh_keys
from mailyard.web.api.page import (
    DomainId,
    Input,
    Moment,
    NextCursor,
    Output,
    PageQuery,
    page_of,
    read_cursor,
)
from mailyard.web.api.route import Answer, Call, Route

TAG = "Sending domains"


class NewDomain(Input):
    """A domain to send from."""

    name: Annotated[str, Meta(min_length=1, max_length=255, examples=["example.org"])]


class DkimKeyItem(Output):
    """A DKIM key and the TXT record that publishes it."""

    selector: str
    algorithm: Annotated[str, Meta(description="`rsa-sha256` or `ed25519-sha256`.")]
    state: Annotated[
        str,
        Meta(
            description="`waiting` for its record to be seen, `signing`, or `retired`: then its "
            "record has to stand for two weeks more."
        ),
    ]
    record_name: str
    record: Annotated[str, Meta(description="The text of the TXT record.")]
    finding: Annotated[
        str, Meta(description="What is wrong with the record in DNS; empty when nothing is.")
    ]
    looked_at: Moment | None
    retired_at: Moment | None


class DomainItem(Output):
    """A domain that the workspace sends from."""

    id: DomainId
    name: str
    signs: Annotated[bool, Meta(description="Whether mail from it is signed.")]
    keys: list[DkimKeyItem]
    created_at: Moment


class DomainPage(Output):
    """Sending domains, newest first."""

    items: list[DomainItem]
    next_cursor: NextCursor


def _key(key: DkimKey) -> DkimKeyItem:
    return DkimKeyItem(
        selector=key.selector,
        algorithm=key.algorithm,
        state=key.state,
        record_name=key.record_name,
        record=key.record,
        finding=key.finding,
        looked_at=key.looked_at,
        retired_at=key.retired_at,
    )


def _item(one: Domain) -> DomainItem:
    return DomainItem(
        id=ids.type_id(ids.DOMAIN, one.id),
        name=one.name,
        signs=one.signs,
        keys=[_key(key) for key in one.keys],
        created_at=one.created_at,
    )


def _told(one: Domain) -> dict[str, Any]:
    """A domain as the audit log keeps it."""
    return {"name": one.name, "keys": {key.selector: key.state for key in one.keys}}


def _change(action: str, one: Domain, before: Any, after: Any) -> Change:
    return Change(action, ids.type_id(ids.DOMAIN, one.id), before, after)


async def create_domain(call: Call[NewDomain, None]) -> Answer:
    keys = await fresh_keys()
    async with call.app.database.transaction() as tx:
        one = await call.app.domains.create(call.workspace_id, call.body.name, keys, tx)
        made = _change("domain.create", one, None, _told(one))
        return await call.done(tx, _item(one), made)


async def list_domains(call: Call[None, PageQuery]) -> DomainPage:
    query = call.query
    found = await call.app.domains.page(
        call.workspace_id, before=read_cursor(query.cursor), limit=query.limit
    )
    return page_of(DomainPage, found, _item, query.limit)


async def get_domain(call: Call[None, None]) -> DomainItem:
    return _item(await call.app.domains.get(call.workspace_id, call.ids["domain_id"]))


async def check_domain(call: Call[None, None]) -> Answer:
    domains, domain_id = call.app.domains, call.ids["domain_id"]
    before = await domains.get(call.workspace_id, domain_id)
    findings = await domains.look(before, call.app.fresh_dns)
    async with call.app.database.transaction() as tx:
        after = await domains.note(call.workspace_id, domain_id, findings, tx)
        checked = _change("domain.check", after, _told(before), _told(after))
        return await call.done(tx, _item(after), checked)


async def rotate_keys(call: Call[None, None]) -> Answer:
    domains, domain_id = call.app.domains, call.ids["domain_id"]
    before = await domains.get(call.workspace_id, domain_id)
    keys = await fresh_keys()
    async with call.app.database.transaction() as tx:
        after = await domains.rotate(call.workspace_id, domain_id, keys, tx)
        rotated = _change("domain.rotate", after, _told(before), _told(after))
        return await call.done(tx, _item(after), rotated)


async def remove_domain(call: Call[None, None]) -> Answer:
    async with call.app.database.transaction() as tx:
        one = await call.app.domains.remove(call.workspace_id, call.ids["domain_id"], tx)
        return await call.done(tx, None, _change("domain.remove", one, _told(one), None))


ROUTES = (
    Route(
        "POST",
        "/v1/domains",
        create_domain,
        "createDomain",
        TAG,
        "Add a domain to send from",
        scope.DOMAINS_WRITE,
        status=201,
        answer=DomainItem,
        body=NewDomain,
        description="Its keys sign once the records given in the answer are seen in DNS.",
    ),
    Route(
        "GET",
        "/v1/domains",
        list_domains,
        "listDomains",
        TAG,
        "List sending domains",
        scope.DOMAINS_READ,
        answer=DomainPage,
        query=PageQuery,
    ),
    Route(
        "GET",
        "/v1/domains/{domain_id:dom}",
        get_domain,
        "getDomain",
        TAG,
        "Read a sending domain",
        scope.DOMAINS_READ,
        answer=DomainItem,
    ),
    Route(
        "POST",
        "/v1/domains/{domain_id:dom}/check",
        check_domain,
        "checkDomain",
        TAG,
        "Look at a domain's records in DNS now",
        scope.DOMAINS_WRITE,
        answer=DomainItem,
        idempotency="none",
        description="Keys whose records stand begin to sign; those they replace are retired.",
    ),
    Route(
        "POST",
        "/v1/domains/{domain_id:dom}/rotate",
        rotate_keys,
        "rotateDomainKeys",
        TAG,
        "Make new keys for a domain",
        scope.DOMAINS_WRITE,
        status=201,
        answer=DomainItem,
        description="The old ones sign on until the records of the new ones are seen.",
    ),
    Route(
        "DELETE",
        "/v1/domains/{domain_id:dom}",
        remove_domain,
        "removeDomain",
        TAG,
        "Remove a sending domain and its keys",
        scope.DOMAINS_WRITE,
        status=204,
    ),
)
