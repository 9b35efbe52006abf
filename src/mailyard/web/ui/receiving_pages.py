"""Receiving domains: proof and MX, and where mail goes that is no inbox's."""

from typing import Any
from uuid import UUID

from litestar import Response, get, post
from litestar.params import FromPath

from mailyard.access import scope
from mailyard.core.errors import Conflict, InvalidInput
from mailyard.core.ids import INBOUND_ROUTE, INBOX, RECEIVING_DOMAIN, parse_type_id, type_id
from mailyard.core.limits import API_PAGE_ITEMS
from mailyard.receiving import elsewhere
from mailyard.receiving.domain import ReceivingDomain
from mailyard.receiving.domain_route import InboundRoute, NewRoute
from mailyard.web.api.inbound_routes import told as told_route
from mailyard.web.api.receiving_domains import told
from mailyard.web.ui.frame import Visit

_ACTIONS = {
    "inbox": "into an inbox",
    "forward": "forward to",
    "webhook": "for a webhook",
    "drop": "drop",
    "refuse": "refuse",
}


def _view(visit: Visit, one: ReceivingDomain) -> dict[str, Any]:
    return {
        "id": type_id(RECEIVING_DOMAIN, one.id),
        "name": one.name,
        "status": "ready" if one.proved_at else ("missing" if one.checked_at else "unchecked"),
        "proved": one.proved_at is not None,
        "proof_name": one.proof_name,
        "proof_text": one.proof_text,
        "finding": one.finding,
        "mx_host": visit.application.receiving_domains.host,
        "mx_state": one.mx_state,
        "mx_finding": one.mx_finding,
        "plus": one.plus,
        "checked_at": one.checked_at,
    }


def _route_view(one: InboundRoute) -> dict[str, Any]:
    return {
        "id": type_id(INBOUND_ROUTE, one.id),
        "pattern": one.pattern,
        "action": _ACTIONS[one.action],
        "for_webhook": one.action == elsewhere.WEBHOOK,
        "inbox": one.address,
        "inbox_id": type_id(INBOX, one.filed_in) if one.filed_in else "",
        "forward_to": one.forward_to,
        "position": one.position,
    }


async def _list_page(visit: Visit, problem: str | None = None, name: str = "") -> Response[str]:
    text = visit.ask("before")
    found = await visit.application.receiving_domains.page(
        visit.principal.workspace_id,
        before=parse_type_id(RECEIVING_DOMAIN, text, "before") if text else None,
        limit=API_PAGE_ITEMS,
    )
    views = [_view(visit, one) for one in found]
    following = f"/receiving?before={views[-1]['id']}" if len(found) == API_PAGE_ITEMS else None
    return visit.page(
        "receiving_domains.html",
        status=422 if problem else 200,
        domains=views,
        next_url=following,
        name=name,
        problem=problem,
    )


async def _domain_page(visit: Visit, domain_id: UUID, problem: str | None = None) -> Response[str]:
    one = await visit.application.receiving_domains.get(visit.principal.workspace_id, domain_id)
    routes = await visit.application.inbound_routes.list(visit.principal.workspace_id, domain_id)
    return visit.page(
        "receiving_domain.html",
        status=422 if problem else 200,
        domain=_view(visit, one),
        routes=[_route_view(route) for route in routes],
        actions=_ACTIONS,
        problem=problem,
    )


@get("/receiving")
async def domains(visit: Visit) -> Response[str]:
    visit.principal.require(scope.DOMAINS_READ)
    return await _list_page(visit)


@post("/receiving", status_code=303)
async def add_domain(visit: Visit) -> Response[Any]:
    visit.principal.require(scope.DOMAINS_WRITE)
    name = visit.field("name")
    try:
        async with visit.application.database.transaction() as tx:
            one = await visit.application.receiving_domains.create(
                visit.principal.workspace_id, name, tx
            )
            shown = type_id(RECEIVING_DOMAIN, one.id)
            await visit.application.audit.record(
                visit.principal.actor, "receiving_domain.create", shown, after=told(one), tx=tx
            )
    except (InvalidInput, Conflict) as error:
        return await _list_page(visit, error.message, name)
    return visit.go(f"/receiving/{shown}", "made")


@get("/receiving/{domain_id:str}")
async def domain(visit: Visit, domain_id: FromPath[str]) -> Response[str]:
    visit.principal.require(scope.DOMAINS_READ)
    return await _domain_page(visit, parse_type_id(RECEIVING_DOMAIN, domain_id))


@post("/receiving/{domain_id:str}/check", status_code=303)
async def check(visit: Visit, domain_id: FromPath[str]) -> Response[Any]:
    visit.principal.require(scope.DOMAINS_WRITE)
    service, workspace_id = visit.application.receiving_domains, visit.principal.workspace_id
    before = await service.get(workspace_id, parse_type_id(RECEIVING_DOMAIN, domain_id))
    look = await service.look(before, visit.application.fresh_dns)
    try:
        async with visit.application.database.transaction() as tx:
            after = await service.note(workspace_id, before.id, look, tx)
            await visit.application.audit.record(
                visit.principal.actor,
                "receiving_domain.check",
                domain_id,
                told(before),
                told(after),
                tx,
            )
    except Conflict as error:
        return await _domain_page(visit, before.id, error.message)
    visit.application.bus.announce(elsewhere.TOPIC)
    return visit.go(f"/receiving/{domain_id}", "checked")


@post("/receiving/{domain_id:str}/plus", status_code=303)
async def set_plus(visit: Visit, domain_id: FromPath[str]) -> Response[Any]:
    visit.principal.require(scope.DOMAINS_WRITE)
    service, workspace_id = visit.application.receiving_domains, visit.principal.workspace_id
    identifier, plus = parse_type_id(RECEIVING_DOMAIN, domain_id), visit.field("plus") == "yes"
    async with visit.application.database.transaction() as tx:
        before = await service.get(workspace_id, identifier, tx)
        after = await service.set_plus(workspace_id, identifier, plus, tx)
        await visit.application.audit.record(
            visit.principal.actor,
            "receiving_domain.change",
            domain_id,
            told(before),
            told(after),
            tx,
        )
    visit.application.bus.announce(elsewhere.TOPIC)
    return visit.go(f"/receiving/{domain_id}", "saved")


@post("/receiving/{domain_id:str}/remove", status_code=303)
async def remove(visit: Visit, domain_id: FromPath[str]) -> Response[Any]:
    visit.principal.require(scope.DOMAINS_WRITE)
    workspace_id = visit.principal.workspace_id
    identifier = parse_type_id(RECEIVING_DOMAIN, domain_id)
    async with visit.application.database.transaction() as tx:
        await visit.application.inbound_routes.remove_all(workspace_id, identifier, tx)
        gone = await visit.application.receiving_domains.remove(workspace_id, identifier, tx)
        await visit.application.audit.record(
            visit.principal.actor, "receiving_domain.remove", domain_id, told(gone), None, tx
        )
    visit.application.bus.announce(elsewhere.TOPIC)
    return visit.go("/receiving", "deleted")


@post("/receiving/{domain_id:str}/routes", status_code=303)
async def add_route(visit: Visit, domain_id: FromPath[str]) -> Response[Any]:
    visit.principal.require(scope.DOMAINS_WRITE)
    identifier = parse_type_id(RECEIVING_DOMAIN, domain_id)
    action, target = visit.field("action"), visit.field("target").strip()
    wanted = NewRoute(
        visit.field("pattern"),
        action,
        target if action == elsewhere.INBOX else "",
        tuple(target.replace(",", " ").split()) if action == elsewhere.FORWARD else (),
    )
    try:
        async with visit.application.database.transaction() as tx:
            one = await visit.application.receiving_domains.get(
                visit.principal.workspace_id, identifier, tx
            )
            made = await visit.application.inbound_routes.create(one, wanted, tx)
            await visit.application.audit.record(
                visit.principal.actor,
                "inbound_route.create",
                type_id(INBOUND_ROUTE, made.id),
                after=told_route(made),
                tx=tx,
            )
    except (InvalidInput, Conflict) as error:
        where = f"{error.field}: " if error.field else ""
        return await _domain_page(visit, identifier, where + error.message)
    visit.application.bus.announce(elsewhere.TOPIC)
    return visit.go(f"/receiving/{domain_id}", "made")


@post("/receiving/{domain_id:str}/routes/{route_id:str}/remove", status_code=303)
async def remove_route(
    visit: Visit, domain_id: FromPath[str], route_id: FromPath[str]
) -> Response[Any]:
    visit.principal.require(scope.DOMAINS_WRITE)
    async with visit.application.database.transaction() as tx:
        gone = await visit.application.inbound_routes.remove(
            visit.principal.workspace_id, parse_type_id(INBOUND_ROUTE, route_id), tx
        )
        await visit.application.audit.record(
            visit.principal.actor, "inbound_route.remove", route_id, told_route(gone), None, tx
        )
    visit.application.bus.announce(elsewhere.TOPIC)
    return visit.go(f"/receiving/{domain_id}", "deleted")


HANDLERS = [domains, add_domain, domain, check, set_plus, remove, add_route, remove_route]
