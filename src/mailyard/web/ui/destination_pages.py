"""Destinations as own delivery writes to them now: limits, pauses, answers, what happened."""

from typing import Any

from litestar import Response, get, post

from mailyard.access import scope
from mailyard.core.errors import InvalidInput
from mailyard.web.ui.frame import Visit

_PAGE = 100
_EVENTS = 30
_PAUSES = {"600": "10 min", "3600": "1 h", "14400": "4 h", "86400": "1 day"}


@get("/destinations")
async def destinations(visit: Visit) -> Response[str]:
    visit.principal.require(scope.SHAPING_READ)
    await visit.application.workspaces.require_operator(visit.principal.workspace_id)
    search, held = visit.ask("search")[:100].replace("\0", ""), visit.ask("held") == "on"
    shaping = visit.application.shaping
    found = await shaping.page(
        after=visit.ask("after").replace("\0", ""), search=search, held=held, limit=_PAGE
    )
    next_url = None
    if len(found) == _PAGE:
        next_url = f"/destinations?{visit.query_with(after=found[-1].key)}"
    return visit.page(
        "destinations.html",
        destinations=found,
        events=await shaping.happenings(limit=_EVENTS),
        sources=[
            (name, one)
            for name, pool in visit.application.source_pools.items()
            for one in await pool.standings()
        ],
        search=search,
        held=held,
        pauses=_PAUSES,
        next_url=next_url,
    )


def _destination(visit: Visit) -> str:
    name = visit.field("destination")
    if not name or len(name) > 300 or "\0" in name:
        raise InvalidInput("name a destination of the list", field="destination")
    return name


@post("/destinations/pause", status_code=303)
async def pause(visit: Visit) -> Response[Any]:
    visit.principal.require(scope.SHAPING_WRITE)
    await visit.application.workspaces.require_operator(visit.principal.workspace_id)
    name, seconds = _destination(visit), visit.field("seconds")
    if seconds not in _PAUSES:
        raise InvalidInput("choose one of the times", field="seconds")
    async with visit.application.database.transaction() as tx:
        before, until = await visit.application.shaping.pause(name, float(seconds), "by hand", tx)
        after = {"until": until.isoformat(), "why": "by hand"}
        await visit.application.audit.record(
            visit.principal.actor, "destination.pause", name, before, after, tx=tx
        )
    return visit.go("/destinations", "paused")


@post("/destinations/resume", status_code=303)
async def resume(visit: Visit) -> Response[Any]:
    visit.principal.require(scope.SHAPING_WRITE)
    await visit.application.workspaces.require_operator(visit.principal.workspace_id)
    name = _destination(visit)
    async with visit.application.database.transaction() as tx:
        before = await visit.application.shaping.resume(name, tx)
        await visit.application.audit.record(
            visit.principal.actor, "destination.resume", name, before, {"until": None}, tx=tx
        )
    return visit.go("/destinations", "resumed")


HANDLERS = [destinations, pause, resume]
