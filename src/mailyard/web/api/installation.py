"""The installation itself: its database servers and its backups. For its operators alone."""

from typing import Annotated, Any

from msgspec import Meta

from mailyard.access import scope
from mailyard.core import ids
from mailyard.web.api.page import (
    Moment,
    NextCursor,
    Output,
    PageQuery,
    WorkspaceId,
    read_cursor,
    write_cursor,
)
from mailyard.web.api.route import Call, Route
from mailyard.web.installation import servers_of

TAG = "Installation"
RUNS = 50


class ReplicaItem(Output):
    """A standby server, as the API process that answers sees it now."""

    name: Annotated[str, Meta(description="Host and port.")]
    usable: Annotated[bool, Meta(description="Whether reads go to it.")]
    lag_s: Annotated[float, Meta(description="For how long it has lacked what the primary has.")]
    trouble: Annotated[str, Meta(description="Why it is left out; empty when it is not.")]


class DatabaseItem(Output):
    """The database servers and the connections to them."""

    replicas: list[ReplicaItem]
    connections_each: Annotated[int, Meta(description="Of one process to the primary, at most.")]
    processes: Annotated[int, Meta(description="That may run at once by the settings.")]
    budget: Annotated[int, Meta(description="Connections that all may use together.")]
    processes_most: Annotated[int, Meta(description="That the budget has room for.")]


class BackupRun(Output):
    """One base backup, or one restore on trial, that has come to its end."""

    id: str
    kind: Annotated[str, Meta(description="`base` or `drill`.")]
    started_at: Moment
    finished_at: Moment
    good: bool
    stored_bytes: int
    detail: dict[str, Any]


class BackupList(Output):
    """What became of the newest backups, newest first."""

    configured: Annotated[bool, Meta(description="Whether the settings name a store.")]
    items: list[BackupRun]


class ClusterItem(Output):
    """A database cluster."""

    name: str
    workspaces: Annotated[
        int | None,
        Meta(description="That were moved there; null for `home`, where all others are."),
    ]
    migration: Annotated[int | None, Meta(description="The newest; null when it is away.")]
    away: Annotated[str, Meta(description="Why it does not answer; empty when it does.")]


class MoveItem(Output):
    """A workspace's move to another cluster."""

    workspace: WorkspaceId
    source: str
    target: str
    state: Annotated[
        str, Meta(description="`copying`, `frozen`, `switched`, `done` or `given up`.")
    ]
    rows: int | None
    frozen_s: Annotated[float | None, Meta(description="For so long it took no changes.")]
    trouble: Annotated[str, Meta(description="What was in the way the last time.")]


class ClusterList(Output):
    """The database clusters and the newest moves between them."""

    items: list[ClusterItem]
    moves: list[MoveItem]


class ResidentItem(Output):
    """A workspace, and the database cluster that it is in."""

    id: WorkspaceId
    name: str
    shard: str
    moving: Annotated[bool, Meta(description="Whether it takes no changes at this moment.")]
    created_at: Moment


class ResidentPage(Output):
    """Workspaces of all clusters, newest first."""

    items: list[ResidentItem]
    away: Annotated[
        dict[str, str], Meta(description="Clusters whose workspaces are missing, and why.")
    ]
    next_cursor: NextCursor


async def list_clusters(call: Call[None, None]) -> ClusterList:
    await call.app.workspaces.require_operator(call.workspace_id)
    overview = call.app.shards_overview
    return ClusterList(
        items=[
            ClusterItem(
                name=one.name,
                workspaces=one.workspaces,
                migration=one.migration,
                away=one.away,
            )
            for one in await overview.clusters()
        ],
        moves=[
            MoveItem(
                workspace=ids.type_id(ids.WORKSPACE, one.workspace_id),
                source=one.source,
                target=one.target,
                state=one.state,
                rows=one.rows,
                frozen_s=one.frozen_s,
                trouble=one.trouble,
            )
            for one in await overview.moves()
        ],
    )


async def list_residents(call: Call[None, PageQuery]) -> ResidentPage:
    await call.app.workspaces.require_operator(call.workspace_id)
    page = await call.app.shards_overview.workspaces(
        before=read_cursor(call.query.cursor), limit=call.query.limit
    )
    return ResidentPage(
        items=[
            ResidentItem(
                id=ids.type_id(ids.WORKSPACE, one.id),
                name=one.name,
                shard=one.shard,
                moving=one.moving,
                created_at=one.created_at,
            )
            for one in page.items
        ],
        away=dict(page.away),
        next_cursor=write_cursor(page.next_before),
    )


async def get_database(call: Call[None, None]) -> DatabaseItem:
    await call.app.workspaces.require_operator(call.workspace_id)
    servers = servers_of(call.app)
    return DatabaseItem(
        replicas=[
            ReplicaItem(
                name=one.name,
                usable=one.usable,
                lag_s=round(one.lag_s, 3),
                trouble=one.trouble,
            )
            for one in servers.replicas
        ],
        connections_each=servers.connections_each,
        processes=servers.processes,
        budget=servers.budget,
        processes_most=servers.processes_most,
    )


async def list_backups(call: Call[None, None]) -> BackupList:
    await call.app.workspaces.require_operator(call.workspace_id)
    return BackupList(
        configured=bool(call.app.settings.backup),
        items=[
            BackupRun(
                id=str(one.id),
                kind=one.kind,
                started_at=one.started_at,
                finished_at=one.finished_at,
                good=one.good,
                stored_bytes=one.stored_bytes,
                detail=one.detail,
            )
            for one in await call.app.backup_log.runs(RUNS)
        ],
    )


ROUTES = (
    Route(
        "GET",
        "/v1/installation/shards",
        list_clusters,
        "listShards",
        TAG,
        "List the database clusters and moves between them",
        scope.STATS_READ,
        answer=ClusterList,
        description="For members of the installation's first workspace.",
    ),
    Route(
        "GET",
        "/v1/installation/workspaces",
        list_residents,
        "listAllWorkspaces",
        TAG,
        "List the workspaces of all database clusters",
        scope.STATS_READ,
        answer=ResidentPage,
        query=PageQuery,
        description="For members of the installation's first workspace. A cluster that does not "
        "answer within two seconds is named in `away`.",
    ),
    Route(
        "GET",
        "/v1/installation/database",
        get_database,
        "getDatabase",
        TAG,
        "Read how the database servers are",
        scope.STATS_READ,
        answer=DatabaseItem,
        description="For members of the installation's first workspace.",
    ),
    Route(
        "GET",
        "/v1/installation/backups",
        list_backups,
        "listBackups",
        TAG,
        "Read what became of backups",
        scope.STATS_READ,
        answer=BackupList,
        description="For members of the installation's first workspace.",
    ),
)
