"""The installation's database servers and backups, for its operators."""

from litestar import Response, get

from mailyard.access import scope
from mailyard.web.installation import servers_of
from mailyard.web.ui.frame import Visit

RUNS = 50


@get("/database")
async def database(visit: Visit) -> Response[str]:
    app = visit.application
    await app.workspaces.require_operator(visit.principal.workspace_id)
    visit.principal.require(scope.STATS_READ)
    return visit.page(
        "database.html",
        servers=servers_of(app),
        embedded=app.settings.embedded,
        clusters=await app.shards_overview.clusters() if app.settings.shards else [],
        moves=await app.shards_overview.moves() if app.settings.shards else [],
        configured=bool(app.settings.backup),
        last=await app.backup_log.last_good(),
        runs=await app.backup_log.runs(RUNS),
    )


HANDLERS = [database]
