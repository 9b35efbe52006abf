"""Regions, and how the copies of their databases stand that are kept here."""

from litestar import Response, get

from mailyard.access import scope
from mailyard.web.api.regions import all_regions
from mailyard.web.ui.frame import Visit


@get("/regions")
async def regions(visit: Visit) -> Response[str]:
    app = visit.application
    await app.workspaces.require_operator(visit.principal.workspace_id)
    visit.principal.require(scope.STATS_READ)
    workspace = await app.workspaces.get(visit.principal.workspace_id)
    return visit.page("regions.html", regions=await all_regions(app), home=workspace.region)


HANDLERS = [regions]
