"""The installation itself: its database servers and its backups. For its operators alone."""

from typing import Annotated, Any

from msgspec import Meta

from mailyard.access import scope
from mailyard.web.api.page import Moment, Output
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
