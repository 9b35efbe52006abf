"""Regions: which there are, and how the copies stand that are kept here."""

from typing import Annotated

from msgspec import Meta

from mailyard.access import scope
from mailyard.app import Application
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


async def _copies(app: Application) -> dict[str, CopyItem]:
    states = [] if app.neighbours is None else await app.neighbours.copies()
    return {
        one.region: CopyItem(
            state=one.word,
            unreplayed_bytes=one.unreplayed_bytes,
            last_commit_at=one.last_commit_at,
        )
        for one in states
    }


async def all_regions(app: Application) -> list[RegionItem]:
    """For the API and the page alike."""
    own, copies = app.regions.own, await _copies(app)
    return [
        RegionItem(
            name=region.name,
            here=region.name == own,
            api=region.api,
            smtp=list(region.smtp),
            copy=copies.get(region.name),
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
