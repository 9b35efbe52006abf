"""Sending domains: the records to set, how each stands, keys, the return-path."""

from typing import Any
from uuid import UUID

from litestar import Response, get, post
from litestar.params import FromPath

from mailyard.access import scope
from mailyard.core.errors import Conflict, InvalidInput
from mailyard.core.ids import DOMAIN, parse_type_id, type_id
from mailyard.core.limits import API_PAGE_ITEMS
from mailyard.sending import domain_check
from mailyard.sending.domain import Domain, fresh_keys
from mailyard.web.ui.frame import Visit

_ABOUT = {
    "dkim": "Signature (DKIM)",
    "spf": "Who may send (SPF)",
    "dmarc": "What holds for forged mail (DMARC)",
    "return_path": "Where mail comes back to",
    "return_path_spf": "Who may send (SPF), where receivers look",
    "alignment": "The sender's name and what vouches for it belong together",
    "address_name": "The name of an address that mail leaves from (PTR)",
    "tls": "TLS of our mail server",
}


def told(one: Domain) -> dict[str, Any]:
    """A domain as the audit log keeps it."""
    return {
        "name": one.name,
        "keys": {key.selector: key.state for key in one.keys},
        "return_path": one.return_path,
        "return_path_ready": one.return_path_ready,
    }


def _line(visit: Visit, one: Domain) -> dict[str, Any]:
    report = domain_check.report(one, visit.application.own_side)
    return {
        "id": type_id(DOMAIN, one.id),
        "name": one.name,
        "status": report.status,
        "signs": one.signs,
        "return_path": one.return_path,
        "checked_at": one.checked_at,
    }


def _view(visit: Visit, one: Domain) -> dict[str, Any]:
    report = domain_check.report(one, visit.application.own_side)
    records = [
        {
            "about": _ABOUT.get(stand.wanted.purpose.value, stand.wanted.purpose.value),
            "name": stand.wanted.name,
            "kind": stand.wanted.kind,
            "value": stand.wanted.value,
            "required": stand.wanted.required,
            "state": stand.state,
            "problem": stand.verdict.problem if stand.verdict else "",
            "write": stand.verdict.write if stand.verdict else "",
            "remove": stand.verdict.remove if stand.verdict else (),
            "found": stand.verdict.found if stand.verdict else (),
        }
        for stand in report.records
    ]
    beside = [
        {
            "about": _ABOUT.get(verdict.purpose.value, verdict.purpose.value),
            "name": verdict.name,
            "state": verdict.state.value,
            "problem": verdict.problem,
            "write": verdict.write,
        }
        for verdict in report.beside
    ]
    return {
        **_line(visit, one),
        "return_path_ready": one.return_path_ready,
        "records": records,
        "beside": beside,
        "keys": one.keys,
        "zone": "\n".join(stand.wanted.zone_line for stand in report.records),
    }


async def _list_page(visit: Visit, problem: str | None = None, name: str = "") -> Response[str]:
    text = visit.ask("before")
    found = await visit.application.domains.page(
        visit.principal.workspace_id,
        before=parse_type_id(DOMAIN, text, "before") if text else None,
        limit=API_PAGE_ITEMS,
    )
    lines = [_line(visit, one) for one in found]
    following = f"/domains?before={lines[-1]['id']}" if len(found) == API_PAGE_ITEMS else None
    return visit.page(
        "domains.html",
        status=422 if problem else 200,
        domains=lines,
        next_url=following,
        name=name,
        problem=problem,
    )


async def _domain_page(visit: Visit, domain_id: UUID, problem: str | None = None) -> Response[str]:
    one = await visit.application.domains.get(visit.principal.workspace_id, domain_id)
    return visit.page(
        "domain.html", status=422 if problem else 200, domain=_view(visit, one), problem=problem
    )


@get("/domains")
async def domains(visit: Visit) -> Response[str]:
    visit.principal.require(scope.DOMAINS_READ)
    return await _list_page(visit)


@post("/domains", status_code=303)
async def add_domain(visit: Visit) -> Response[Any]:
    visit.principal.require(scope.DOMAINS_WRITE)
    name, keys = visit.field("name"), await fresh_keys()
    try:
        async with visit.application.database.transaction() as tx:
            one = await visit.application.domains.create(
                visit.principal.workspace_id, name, keys, tx
            )
            shown = type_id(DOMAIN, one.id)
            await visit.application.audit.record(
                visit.principal.actor, "domain.create", shown, after=told(one), tx=tx
            )
    except (InvalidInput, Conflict) as error:
        return await _list_page(visit, error.message, name)
    return visit.go(f"/domains/{shown}", "made")


@get("/domains/{domain_id:str}")
async def domain(visit: Visit, domain_id: FromPath[str]) -> Response[str]:
    visit.principal.require(scope.DOMAINS_READ)
    return await _domain_page(visit, parse_type_id(DOMAIN, domain_id))


@post("/domains/{domain_id:str}/check", status_code=303)
async def check(visit: Visit, domain_id: FromPath[str]) -> Response[Any]:
    visit.principal.require(scope.DOMAINS_WRITE)
    service, workspace_id = visit.application.domains, visit.principal.workspace_id
    before = await service.get(workspace_id, parse_type_id(DOMAIN, domain_id))
    verdicts = await domain_check.look(
        before, visit.application.own_side, visit.application.fresh_dns
    )
    async with visit.application.database.transaction() as tx:
        after = await service.note(workspace_id, before.id, verdicts, tx)
        await visit.application.audit.record(
            visit.principal.actor, "domain.check", domain_id, told(before), told(after), tx
        )
    return visit.go(f"/domains/{domain_id}", "checked")


@post("/domains/{domain_id:str}/rotate", status_code=303)
async def rotate(visit: Visit, domain_id: FromPath[str]) -> Response[Any]:
    visit.principal.require(scope.DOMAINS_WRITE)
    service, workspace_id = visit.application.domains, visit.principal.workspace_id
    before = await service.get(workspace_id, parse_type_id(DOMAIN, domain_id))
    keys = await fresh_keys()
    try:
        async with visit.application.database.transaction() as tx:
            after = await service.rotate(workspace_id, before.id, keys, tx)
            await visit.application.audit.record(
                visit.principal.actor, "domain.rotate", domain_id, told(before), told(after), tx
            )
    except Conflict as error:
        return await _domain_page(visit, before.id, error.message)
    return visit.go(f"/domains/{domain_id}", "rotated")


@post("/domains/{domain_id:str}/return-path", status_code=303)
async def set_return_path(visit: Visit, domain_id: FromPath[str]) -> Response[Any]:
    visit.principal.require(scope.DOMAINS_WRITE)
    service, workspace_id = visit.application.domains, visit.principal.workspace_id
    identifier, name = parse_type_id(DOMAIN, domain_id), visit.field("return_path")
    try:
        domain_check.refuse_without_host(name, visit.application.own_side)
        async with visit.application.database.transaction() as tx:
            before = await service.get(workspace_id, identifier, tx)
            after = await service.set_return_path(workspace_id, identifier, name, tx)
            await visit.application.audit.record(
                visit.principal.actor, "domain.change", domain_id, told(before), told(after), tx
            )
    except InvalidInput as error:
        return await _domain_page(visit, identifier, error.message)
    return visit.go(f"/domains/{domain_id}", "saved")


@post("/domains/{domain_id:str}/remove", status_code=303)
async def remove(visit: Visit, domain_id: FromPath[str]) -> Response[Any]:
    visit.principal.require(scope.DOMAINS_WRITE)
    async with visit.application.database.transaction() as tx:
        gone = await visit.application.domains.remove(
            visit.principal.workspace_id, parse_type_id(DOMAIN, domain_id), tx
        )
        await visit.application.audit.record(
            visit.principal.actor, "domain.remove", domain_id, told(gone), tx=tx
        )
    return visit.go("/domains", "deleted")


HANDLERS = [domains, add_domain, domain, check, rotate, set_return_path, remove]
