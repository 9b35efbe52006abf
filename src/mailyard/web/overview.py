"""The figures of the overview page and of `/v1/stats`: throughput, queues, states, processes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from mailyard.core.clock import Clock, SystemClock
from mailyard.queue.engine import Engine
from mailyard.queue.job import LANES, Depth
from mailyard.storage.database import Database
from mailyard.storage.queries import load

_SQL = load("overview")

RECEIVED = "received"
STATE_PREFIX = "delivery."
SENT = "delivery.accepted"
_QUEUED = "delivery.queued"  # counts who came, not who waits: that is `waiting`
_RATE_MINUTES = 2


@dataclass(frozen=True, slots=True)
class ProcessFigure:
    """One role process as it last described itself."""

    role: str
    host: str
    pid: int
    up_s: float
    memory_mb: float
    live_connections: int


@dataclass(frozen=True, slots=True)
class CacheFigure:
    """One layer of the cache for one kind of value; `rate` is the share of hits, 0 to 1."""

    kind: str
    layer: str
    hits: int
    misses: int
    rate: float


class _Stats(msgspec.Struct):
    """Of a process's row what is read here."""

    memory_bytes: int = 0
    cache: dict[str, int] = {}
    live: dict[str, int] = {}


@dataclass(frozen=True, slots=True)
class Series:
    """Amounts by minute, oldest first; `at` in seconds since 1970."""

    at: list[int]
    received: list[int]
    sent: list[int]


@dataclass(frozen=True, slots=True)
class Figures:
    """A workspace at a glance; rates are means over the last two minutes."""

    received_per_s: float
    sent_per_s: float
    received_today: int
    sent_today: int
    waiting: int
    oldest_age_s: float
    dead: int
    depths: Sequence[Depth]
    states: Sequence[tuple[str, int]]
    processes: Sequence[ProcessFigure]


class Overview:
    """Reads the figures; every number comes from counters, none from counting rows."""

    def __init__(self, *, database: Database, engine: Engine, clock: Clock | None = None) -> None:
        self._database = database
        self._engine = engine
        self._clock = clock or SystemClock()

    async def series(self, workspace_id: UUID, minutes: int = 60) -> Series:
        """Received and sent by minute over the last `minutes`."""
        now = self._clock.now()
        first = now.replace(second=0, microsecond=0) - timedelta(minutes=minutes - 1)
        rows = await self._database.fetch(_SQL.minute_series, workspace_id, [RECEIVED, SENT], first)
        amounts = {(row["minute"], row["name"]): row["amount"] for row in rows}
        marks = [first + timedelta(minutes=place) for place in range(minutes)]
        return Series(
            at=[int(mark.timestamp()) for mark in marks],
            received=[amounts.get((mark, RECEIVED), 0) for mark in marks],
            sent=[amounts.get((mark, SENT), 0) for mark in marks],
        )

    async def figures(self, workspace_id: UUID) -> Figures:
        """Everything that the overview shows."""
        now = self._clock.now()
        rows = await self._database.fetch(_SQL.totals, workspace_id, now - timedelta(days=1))
        totals = {row["name"]: row["amount"] for row in rows}
        recent = await self.series(workspace_id, _RATE_MINUTES)
        seconds = (_RATE_MINUTES - 1) * 60 + now.second + 1
        depths = await self._engine.depth(LANES)
        return Figures(
            received_per_s=sum(recent.received) / seconds,
            sent_per_s=sum(recent.sent) / seconds,
            received_today=totals.get(RECEIVED, 0),
            sent_today=totals.get(SENT, 0),
            waiting=sum(depth.ready for depth in depths),
            oldest_age_s=max((depth.oldest_age_s for depth in depths), default=0.0),
            dead=sum(depth.dead for depth in depths),
            depths=depths,
            states=sorted(
                (name.removeprefix(STATE_PREFIX), amount)
                for name, amount in totals.items()
                if name.startswith(STATE_PREFIX) and name != _QUEUED
            ),
            processes=await self._processes(now),
        )

    async def cache(self) -> list[CacheFigure]:
        """How the caches of all living processes do, since these began."""
        rows = await self._database.fetch(_SQL.live_processes)
        return cache_figures([row["stats"] for row in rows])

    async def _processes(self, now: datetime) -> list[ProcessFigure]:
        rows = await self._database.fetch(_SQL.live_processes)
        figures = []
        for row in rows:
            stats = msgspec.json.decode(row["stats"], type=_Stats)
            figures.append(
                ProcessFigure(
                    role=row["role"],
                    host=row["host"],
                    pid=row["pid"],
                    up_s=(now - row["started_at"]).total_seconds(),
                    memory_mb=stats.memory_bytes / 1_000_000,
                    live_connections=sum(stats.live.values()),
                )
            )
        return figures


def cache_figures(stats: Iterable[str]) -> list[CacheFigure]:
    """The sum over processes of what their rows say of the cache, by kind and layer."""
    found: dict[tuple[str, str], dict[str, int]] = {}
    for text in stats:
        for name, count in msgspec.json.decode(text, type=_Stats).cache.items():
            kind, layer, outcome = name.split(" ")
            outcomes = found.setdefault((kind, layer), {"hit": 0, "miss": 0})
            outcomes[outcome] += count
    return [
        CacheFigure(
            kind=kind,
            layer=layer,
            hits=outcomes["hit"],
            misses=outcomes["miss"],
            rate=round(outcomes["hit"] / max(1, outcomes["hit"] + outcomes["miss"]), 4),
        )
        for (kind, layer), outcomes in sorted(found.items())
    ]
