"""Figures of the workspace: rates, states; for the installation's own also queues and processes."""

from dataclasses import asdict
from typing import Annotated

from msgspec import Meta, structs

from mailyard.access import scope
from mailyard.core.errors import NotAllowed
from mailyard.web.api.page import Input, Output
from mailyard.web.api.route import Call, Route
from mailyard.web.overview import Overview

TAG = "Figures"


class ProcessItem(Output):
    """A role process."""

    role: str
    host: str
    pid: int
    up_s: float
    memory_mb: float
    live_connections: Annotated[int, Meta(description="Event streams, WebSockets and waits.")]


class Waiting(Output):
    """What waits in all queues."""

    ready: int
    dead: int
    oldest_age_s: float


class CacheLayer(Output):
    """One layer of the cache for one kind of value, over all processes."""

    kind: str
    layer: Annotated[str, Meta(description="process, shared or result.")]
    hits: int
    misses: int
    rate: Annotated[float, Meta(description="The share of hits, 0 to 1.")]


class RedisItem(Output):
    """The Redis that the processes share, all its primaries together."""

    servers: str
    away_s: Annotated[float, Meta(description="For how long it has not answered; 0: it does.")]
    why: str
    version: str | None = None
    primaries: int | None = None
    replicas: int | None = None
    memory_bytes: int | None = None
    memory_max_bytes: int | None = None
    hits: int | None = None
    misses: int | None = None
    evictions: int | None = None


class Stats(Output):
    """The workspace at a glance; rates are means over the last two minutes."""

    received_per_s: float
    sent_per_s: float
    received_today: int
    sent_today: int
    states: Annotated[dict[str, int], Meta(description="Deliveries of the day by state.")]
    waiting: Annotated[
        Waiting | None, Meta(description="Only for the installation's first workspace.")
    ]
    processes: Annotated[
        list[ProcessItem], Meta(description="Only for the installation's first workspace.")
    ]
    cache: Annotated[
        list[CacheLayer], Meta(description="Only for the installation's first workspace.")
    ]
    redis: Annotated[
        RedisItem | None,
        Meta(description="Only for the installation's first workspace, and where one is used."),
    ]


class Series(Output):
    """Amounts by minute, oldest first."""

    at: Annotated[list[int], Meta(description="Seconds since 1970.")]
    received: list[int]
    sent: list[int]


class SeriesQuery(Input):
    """How far back."""

    minutes: Annotated[int, Meta(ge=1, le=1440)] = 60


def _overview(call: Call[None, None] | Call[None, SeriesQuery]) -> Overview:
    return Overview(database=call.app.database, engine=call.app.engine)


async def get_stats(call: Call[None, None]) -> Stats:
    figures = await _overview(call).figures(call.workspace_id)
    try:
        await call.app.workspaces.require_operator(call.workspace_id)
        ours = True
    except NotAllowed:
        ours = False
    return Stats(
        received_per_s=figures.received_per_s,
        sent_per_s=figures.sent_per_s,
        received_today=figures.received_today,
        sent_today=figures.sent_today,
        states=dict(figures.states),
        waiting=Waiting(ready=figures.waiting, dead=figures.dead, oldest_age_s=figures.oldest_age_s)
        if ours
        else None,
        processes=[
            ProcessItem(
                role=one.role,
                host=one.host,
                pid=one.pid,
                up_s=one.up_s,
                memory_mb=one.memory_mb,
                live_connections=one.live_connections,
            )
            for one in figures.processes
        ]
        if ours
        else [],
        cache=[CacheLayer(**asdict(one)) for one in await _overview(call).cache()] if ours else [],
        redis=await _redis(call) if ours else None,
    )


async def _redis(call: Call[None, None]) -> RedisItem | None:
    if call.app.fleet is None:
        return None
    figures = await call.app.fleet.figures()
    item = RedisItem(servers=figures.servers, away_s=figures.away_s, why=figures.why)
    if figures.facts is None:
        return item
    return structs.replace(
        item,
        **{
            name: value
            for name, value in asdict(figures.facts).items()
            if name in RedisItem.__struct_fields__
        },
    )


async def get_series(call: Call[None, SeriesQuery]) -> Series:
    series = await _overview(call).series(call.workspace_id, call.query.minutes)
    return Series(at=series.at, received=series.received, sent=series.sent)


ROUTES = (
    Route(
        "GET",
        "/v1/stats",
        get_stats,
        "getStats",
        TAG,
        "Read the workspace's figures",
        scope.STATS_READ,
        answer=Stats,
    ),
    Route(
        "GET",
        "/v1/stats/series",
        get_series,
        "getSeries",
        TAG,
        "Read received and sent by minute",
        scope.STATS_READ,
        answer=Series,
        query=SeriesQuery,
    ),
)
