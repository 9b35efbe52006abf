"""Addresses that the workspace holds, with or without an inbox."""

from typing import Any
from urllib.parse import urlencode

from litestar import Response, get, post

from mailyard.access import scope
from mailyard.core.errors import Conflict, InvalidInput
from mailyard.core.limits import API_PAGE_ITEMS, INBOXES_PER_BATCH
from mailyard.web.ui.form_values import lines
from mailyard.web.ui.frame import Visit


async def _page(visit: Visit, wanted: str = "", problem: str | None = None) -> Response[str]:
    app = visit.application
    found = await app.reservations.list(
        visit.principal.workspace_id, visit.ask("after"), API_PAGE_ITEMS
    )
    following = None
    if len(found) == API_PAGE_ITEMS:
        following = "/inboxes/reserved?" + urlencode({"after": found[-1]})
    return visit.page(
        "reserved.html",
        status=422 if problem else 200,
        addresses=found,
        next_url=following,
        domain=app.settings.inbox_domain,
        wanted=wanted,
        problem=problem,
        may_change=scope.INBOXES_WRITE in visit.principal.scopes,
    )


@get("/inboxes/reserved")
async def reserved(visit: Visit) -> Response[str]:
    visit.principal.require(scope.INBOXES_READ)
    return await _page(visit)


@post("/inboxes/reserved", status_code=303)
async def reserve(visit: Visit) -> Response[Any]:
    visit.principal.require(scope.INBOXES_WRITE)
    app, text = visit.application, visit.field("addresses")
    wanted = [
        one if "@" in one else f"{one}@{app.settings.inbox_domain}"
        for one in lines(text.replace("\r", ""))
    ]
    try:
        if not 1 <= len(wanted) <= INBOXES_PER_BATCH:
            raise InvalidInput(f"1 to {INBOXES_PER_BATCH} addresses")
        async with app.database.transaction() as tx:
            held = await app.reservations.reserve(visit.principal.workspace_id, wanted, tx)
            for address in held:
                await app.audit.record(
                    visit.principal.actor, "address.reserve", address, None, {}, tx
                )
    except (InvalidInput, Conflict) as error:
        place = (error.field or "").partition(".")[2]
        named = wanted[int(place)] if place.isdecimal() and int(place) < len(wanted) else ""
        shown = error.message if named in error.message else f"{named}: {error.message}"
        return await _page(visit, text, shown)
    return visit.go("/inboxes/reserved", "saved")


@post("/inboxes/reserved/release", status_code=303)
async def release(visit: Visit) -> Response[Any]:
    visit.principal.require(scope.INBOXES_WRITE)
    app = visit.application
    async with app.database.transaction() as tx:
        gone = await app.reservations.release(
            visit.principal.workspace_id, [visit.field("address")], tx
        )
        for address in gone:
            await app.audit.record(visit.principal.actor, "address.release", address, {}, None, tx)
    return visit.go("/inboxes/reserved", "released")


HANDLERS = [reserved, reserve, release]
