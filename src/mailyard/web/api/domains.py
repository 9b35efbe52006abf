"""Sending domains: the keys that sign for them and the DNS records to publish."""

from typing import Annotated, Any

from msgspec import Meta

from mailyard.access import scope
from mailyard.access.audit import Change
from mailyard.core import ids
from mailyard.protocol.dns_records import Verdict
from mailyard.sending import domain_check
from mailyard.sending.domain import DkimKey, Domain, fresh_keys
from mailyard.sending.domain_check import OwnSide, Stand
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

ReturnPath = Annotated[
    str,
    Meta(
        max_length=255,
        examples=["bounces"],
        description="A name under the domain to which its mail comes back, used once its records "
        "stand; empty for the one that all share.",
    ),
]
Found = Annotated[
    str,
    Meta(
        description="`good`, `warning` (mail goes out, and something should be better), `missing`, "
        "`wrong`, `unknown` (DNS could not say), or `unchecked`."
    ),
]


class NewDomain(Input):
    """A domain to send from."""

    name: Annotated[str, Meta(min_length=1, max_length=255, examples=["example.org"])]
    return_path: ReturnPath = ""


class DomainChange(Input):
    """What of a domain can be changed."""

    return_path: ReturnPath


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


class RecordItem(Output):
    """A DNS record to set, and how it stands."""

    purpose: Annotated[
        str,
        Meta(
            description="`dkim`, `return_path`, `return_path_spf`, `spf`, `dmarc`, `tracking` or "
            "`receiving`."
        ),
    ]
    name: str
    kind: Annotated[str, Meta(description="`TXT`, `CNAME` or `MX`.")]
    value: str
    zone: Annotated[str, Meta(description="The record as a line of a zone file.")]
    required: Annotated[bool, Meta(description="Whether mail fails checks without it.")]
    state: Found
    problem: Annotated[str, Meta(description="What is wrong; empty when nothing is.")]
    write: Annotated[str, Meta(description="What to enter instead of what stands there.")]
    remove: Annotated[list[str], Meta(description="What stands there and has to go.")]
    found: Annotated[list[str], Meta(description="What stands there.")]


class CheckItem(Output):
    """What was found beside the records: DMARC's alignment, the names (PTR) of the addresses that
    mail leaves from, TLS of our mail server."""

    purpose: Annotated[str, Meta(description="`alignment`, `address_name` or `tls`.")]
    name: str
    state: Found
    problem: str
    write: str


class DomainItem(Output):
    """A domain that the workspace sends from."""

    id: DomainId
    name: str
    status: Annotated[
        str,
        Meta(
            description="`unchecked`; `ready`: every required record stands; `wrong`: one does "
            "not; `unknown`: DNS could not say."
        ),
    ]
    signs: Annotated[bool, Meta(description="Whether mail from it is signed.")]
    return_path: str
    return_path_ready: Annotated[bool, Meta(description="Whether mail comes back to it.")]
    keys: list[DkimKeyItem]
    records: list[RecordItem]
    checks: list[CheckItem]
    checked_at: Moment | None
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


def _record(stand: Stand) -> RecordItem:
    wanted, verdict = stand.wanted, stand.verdict
    return RecordItem(
        purpose=wanted.purpose.value,
        name=wanted.name,
        kind=wanted.kind,
        value=wanted.value,
        zone=wanted.zone_line,
        required=wanted.required,
        state=stand.state,
        problem=verdict.problem if verdict else "",
        write=verdict.write if verdict else "",
        remove=list(verdict.remove) if verdict else [],
        found=list(verdict.found) if verdict else [],
    )


def _check(verdict: Verdict) -> CheckItem:
    return CheckItem(
        purpose=verdict.purpose.value,
        name=verdict.name,
        state=verdict.state.value,
        problem=verdict.problem,
        write=verdict.write,
    )


def _item(one: Domain, own: OwnSide) -> DomainItem:
    report = domain_check.report(one, own)
    return DomainItem(
        id=ids.type_id(ids.DOMAIN, one.id),
        name=one.name,
        status=report.status,
        signs=one.signs,
        return_path=one.return_path,
        return_path_ready=one.return_path_ready,
        keys=[_key(key) for key in one.keys],
        records=[_record(stand) for stand in report.records],
        checks=[_check(verdict) for verdict in report.beside],
        checked_at=one.checked_at,
        created_at=one.created_at,
    )


def _told(one: Domain) -> dict[str, Any]:
    """A domain as the audit log keeps it."""
    return {
        "name": one.name,
        "keys": {key.selector: key.state for key in one.keys},
        "return_path": one.return_path,
        "return_path_ready": one.return_path_ready,
    }


def _change(action: str, one: Domain, before: Any, after: Any) -> Change:
    return Change(action, ids.type_id(ids.DOMAIN, one.id), before, after)


async def create_domain(call: Call[NewDomain, None]) -> Answer:
    domain_check.refuse_without_host(call.body.return_path, call.app.own_side)
    keys = await fresh_keys()
    async with call.app.database.transaction() as tx:
        one = await call.app.domains.create(
            call.workspace_id, call.body.name, keys, tx, call.body.return_path
        )
        made = _change("domain.create", one, None, _told(one))
        return await call.done(tx, _item(one, call.app.own_side), made)


async def list_domains(call: Call[None, PageQuery]) -> DomainPage:
    query = call.query
    found = await call.app.domains.page(
        call.workspace_id, before=read_cursor(query.cursor), limit=query.limit
    )
    own = call.app.own_side
    return page_of(DomainPage, found, lambda one: _item(one, own), query.limit)


async def get_domain(call: Call[None, None]) -> DomainItem:
    one = await call.app.domains.get(call.workspace_id, call.ids["domain_id"])
    return _item(one, call.app.own_side)


async def change_domain(call: Call[DomainChange, None]) -> Answer:
    domains, domain_id = call.app.domains, call.ids["domain_id"]
    domain_check.refuse_without_host(call.body.return_path, call.app.own_side)
    async with call.app.database.transaction() as tx:
        before = await domains.get(call.workspace_id, domain_id, tx)
        after = await domains.set_return_path(
            call.workspace_id, domain_id, call.body.return_path, tx
        )
        changed = _change("domain.change", after, _told(before), _told(after))
        return await call.done(tx, _item(after, call.app.own_side), changed)


async def check_domain(call: Call[None, None]) -> Answer:
    domains, domain_id, own = call.app.domains, call.ids["domain_id"], call.app.own_side
    before = await domains.get(call.workspace_id, domain_id)
    verdicts = await domain_check.look(before, own, call.app.fresh_dns)
    async with call.app.database.transaction() as tx:
        after = await domains.note(call.workspace_id, domain_id, verdicts, tx)
        checked = _change("domain.check", after, _told(before), _told(after))
        return await call.done(tx, _item(after, own), checked)


async def rotate_keys(call: Call[None, None]) -> Answer:
    domains, domain_id = call.app.domains, call.ids["domain_id"]
    before = await domains.get(call.workspace_id, domain_id)
    keys = await fresh_keys()
    async with call.app.database.transaction() as tx:
        after = await domains.rotate(call.workspace_id, domain_id, keys, tx)
        rotated = _change("domain.rotate", after, _told(before), _told(after))
        return await call.done(tx, _item(after, call.app.own_side), rotated)


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
        description="Each record has a state, what is wrong and what to write instead. Keys whose "
        "records stand begin to sign, those they replace are retired; a return-path of the "
        "domain's own is used from now on, or no longer.",
    ),
    Route(
        "PATCH",
        "/v1/domains/{domain_id:dom}",
        change_domain,
        "changeDomain",
        TAG,
        "Change a sending domain's return-path",
        scope.DOMAINS_WRITE,
        answer=DomainItem,
        body=DomainChange,
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
