"""The overview, its live parts and the demo's button."""

from typing import Any

from litestar import Response, get, post

from mailyard.access import scope
from mailyard.core.errors import InvalidInput, NotAllowed
from mailyard.core.ids import DEMO, type_id
from mailyard.web.overview import Figures, Overview, Series
from mailyard.web.ui.frame import Visit

_DEMO_SIZES = range(1, 1_000_001)


def _overview(visit: Visit) -> Overview:
    return Overview(database=visit.application.database, engine=visit.application.engine)


async def _figures(visit: Visit) -> dict[str, Any]:
    """The figures; queues and processes serve all workspaces, so only the operator's sees them."""
    figures: Figures = await _overview(visit).figures(visit.principal.workspace_id)
    try:
        await visit.application.workspaces.require_operator(visit.principal.workspace_id)
        operator = True
    except NotAllowed:
        operator = False
    return {"overview": figures, "operator": operator}


@get("/")
async def overview(visit: Visit) -> Response[str]:
    visit.principal.require(scope.STATS_READ)
    demo = await visit.application.demos.latest(visit.principal.workspace_id)
    return visit.page("overview.html", demo=demo, **await _figures(visit))


@get("/fragments/overview")
async def overview_part(visit: Visit) -> Response[str]:
    visit.principal.require(scope.STATS_READ)
    return visit.fragment("_overview.html", **await _figures(visit))


@get("/fragments/demo")
async def demo_part(visit: Visit) -> Response[str]:
    visit.principal.require(scope.DEMOS_READ)
    demo = await visit.application.demos.latest(visit.principal.workspace_id)
    return visit.fragment("_demo.html", demo=demo)


@get("/series.json")
async def series(visit: Visit) -> Series:
    visit.principal.require(scope.STATS_READ)
    return await _overview(visit).series(visit.principal.workspace_id)


@post("/demo", status_code=303)
async def run_demo(visit: Visit) -> Response[Any]:
    visit.principal.require(scope.DEMOS_WRITE)
    text = visit.field("recipients")
    if not text.isdecimal() or len(text) > 7 or int(text) not in _DEMO_SIZES:
        raise InvalidInput("a demo has 1 to 1,000,000 recipients", field="recipients")
    workspace_id = visit.principal.workspace_id
    async with visit.application.database.transaction() as tx:
        run = await visit.application.demos.start(workspace_id, int(text), tx)
        await visit.application.audit.record(
            visit.principal.actor,
            "demo.start",
            type_id(DEMO, run.id),
            after={"recipients": run.recipients},
            tx=tx,
        )
    return visit.go("/", "started")


HANDLERS = [overview, overview_part, demo_part, series, run_demo]
