"""Features that come gradually: how far each has come, and a button for each stage."""

from typing import Any

from litestar import Response, get, post
from litestar.params import FromPath

from mailyard.access import scope
from mailyard.access.feature import STAGES
from mailyard.core.errors import MailyardError
from mailyard.web.ui.frame import Visit


async def _page(visit: Visit, **said: str) -> Response[str]:
    app = visit.application
    await app.workspaces.require_operator(visit.principal.workspace_id)
    visit.principal.require(scope.ADMIN)
    return visit.page(
        "features.html",
        status=422 if "problem" in said else 200,
        features=await app.features.all(),
        stages=STAGES,
        **said,
    )


@get("/features")
async def features(visit: Visit) -> Response[str]:
    return await _page(visit)


@post("/features/{name:str}", status_code=303)
async def change_feature(visit: Visit, name: FromPath[str]) -> Response[Any]:
    app = visit.application
    await app.workspaces.require_operator(visit.principal.workspace_id)
    visit.principal.require(scope.ADMIN)
    text = visit.field("percent")
    try:
        percent = int(text) if text.isdecimal() and len(text) < 4 else -1
        async with app.database.transaction() as tx:
            before = await app.features.roll_out(name, percent, tx)
            await app.audit.record(
                visit.principal.actor,
                "feature.roll_out",
                name,
                before={"percent": before.percent},
                after={"percent": percent},
                tx=tx,
            )
    except MailyardError as error:
        return await _page(visit, problem=error.message)
    app.features.announce()
    return visit.go("/features", "saved")


HANDLERS = [features, change_feature]
