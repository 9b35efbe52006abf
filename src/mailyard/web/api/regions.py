"""Regions: which there are, and how the copies stand that are kept here."""

from typing import Annotated

from msgspec import Meta

from mailyard.access import scope
from mailyard.access.neighbours import CopyState
from mailyard.access.region import Region
from mailyard.app import Application
from mailyard.core.errors import Unavailable
from mailyard.web.api.page import Moment, Output
from mailyard.web.api.route import Call, Route

TAG = "Regions"


class CopyItem(Output):
    """The copy of a region's database that is kept in this one."""

    state: Annotated[
        str,
        Meta(
            description="`streams`; `silent`: it hears nothing of its primary; `promoted`: it is no"
            " copy any more; `away`: it does not answer."
        ),
    ]
    unreplayed_bytes: int = 0
    last_commit_at: Annotated[
        Moment | None, Meta(description="Of the last transaction that it has.")
    ] = None


class RegionItem(Output):
    """A region."""

    name: str
    here: Annotated[bool, Meta(description="Whether this API is of it.")]
    api: str
    smtp: Annotated[list[str], Meta(description="The names that mail for it is sent to.")]
    copy: Annotated[
        CopyItem | None, Meta(description="Null: none is kept here, or it is this region.")
    ] = None


class RegionList(Output):
    """All regions, as this one's file has them."""

    items: list[RegionItem]


def _copy_item(state: CopyState) -> CopyItem:
    word = "streams" if state.streams else "silent"
    return CopyItem(
        state=word if state.follows else "promoted",
        unreplayed_bytes=state.unreplayed_bytes,
        last_commit_at=state.last_commit_at,
    )


async def _copy(app: Application, region: Region) -> CopyItem | None:
    neighbours = app.neighbours
    if neighbours is None or not region.standby or region.name == app.regions.own:
        return None
    try:
        return _copy_item(await neighbours.state_of(region))
    except Unavailable:
        return CopyItem(state="away")


async def all_regions(app: Application) -> list[RegionItem]:
    """For the API and the page alike."""
    own = app.regions.own
    return [
        RegionItem(
            name=region.name,
            here=region.name == own,
            api=region.api,
            smtp=list(region.smtp),
            copy=await _copy(app, region),
        )
        for region in (app.regions.all or {}).values()
    ]


async def list_regions(call: Call[None, None]) -> RegionList:
    await call.app.workspaces.require_operator(call.workspace_id)
    return RegionList(items=await all_regions(call.app))


ROUTES = (
    Route(
        "GET",
        "/v1/regions",
        list_regions,
        "listRegions",
        TAG,
        "List the regions",
        scope.STATS_READ,
        answer=RegionList,
        description="For the installation's first workspace.",
    ),
)
