"""One look at the whole installation: every process's own counts, the queues, the database.

Two looks make rates. A process stamps its counts with the time of its beat, so that a rate is
counted over the time between two beats of that process and not between two looks.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

from mailyard.core.errors import Unavailable
from mailyard.queue.job import LANES, Depth
from mailyard.storage.database import Database
from mailyard.storage.queries import load

_SQL = load("monitoring")


class Http(msgspec.Struct):
    """Requests of one process since it began. `buckets`: cumulative, as HTTP_SECONDS has them.

    `count` were answered; `arrived` came, whether answered or not; `waiting` have no answer now.
    """

    arrived: float = 0
    waiting: float = 0
    count: float = 0
    errors: float = 0
    seconds: float = 0.0
    buckets: list[float] = []


class Analysis(msgspec.Struct):
    """Questions of one process to models since it began. `buckets`: cumulative, SLOW_BUCKETS."""

    calls: float = 0
    failures: float = 0
    seconds: float = 0.0
    tokens: float = 0
    buckets: list[float] = []


class Totals(msgspec.Struct):
    """What one process has counted since it began (`observe/totals.py`)."""

    http: Http = msgspec.field(default_factory=Http)
    jobs: dict[str, dict[str, float]] = {}
    deliveries: dict[str, float] = {}
    returned: dict[str, float] = {}
    reported: dict[str, float] = {}
    smtp: dict[str, float] = {}
    live: float = 0
    queries: dict[str, tuple[float, float]] = {}
    analysis: Analysis = msgspec.field(default_factory=Analysis)
    redis: dict[str, float] = {}
    rates: dict[str, tuple[float, float]] = {}
    fullest: dict[str, float] = {}
    more: dict[str, float] = {}


class Stats(msgspec.Struct):
    """What a process's row says of it. `cpu_percent` is of one core. `cpu_wait_s`: how long its
    threads were ready to run and had no core, because others had them."""

    memory_bytes: int = 0
    memory_share: float = 0.0
    cpu_percent: float = 0.0
    cpu_s: float = 0.0
    cpu_wait_s: float = 0.0
    cache: dict[str, int] = {}
    totals: Totals = msgspec.field(default_factory=Totals)


@dataclass(frozen=True, slots=True)
class ProcessLook:
    """One living process. `at_s`: when it said this, by the database's clock."""

    id: str
    role: str
    host: str
    pid: int
    up_s: float
    at_s: float
    stats: Stats


@dataclass(frozen=True, slots=True)
class DatabaseLook:
    """`connections` of clients; `lag_s`: of the replica that is furthest behind, None without."""

    connections: int
    lag_s: float | None


@dataclass(frozen=True, slots=True)
class Look:
    """All of it. What could not be read is None, or lacks its name."""

    at_s: float
    processes: Sequence[ProcessLook]
    depths: Mapping[str, Depth]
    database: DatabaseLook | None
    disk_used: float | None


class Depths(Protocol):
    """What is asked of the queue's engine."""

    async def depth(self, queues: Sequence[str]) -> list[Depth]: ...


async def take_look(database: Database, engine: Depths, data: Path | None) -> Look:
    """Three small statements. `data`: a folder whose disk counts. Raises Unavailable."""
    rows = await database.fetch(_SQL.living)
    processes = [
        ProcessLook(
            id=row["id"].hex[-12:],
            role=row["role"],
            host=row["host"],
            pid=row["pid"],
            up_s=row["up_s"],
            at_s=row["seen_s"],
            stats=msgspec.json.decode(row["stats"], type=Stats),
        )
        for row in rows
    ]
    facts = await database.fetchrow(_SQL.database_facts)
    try:
        depths = {one.queue: one for one in await engine.depth(LANES)}
    except Unavailable:
        depths = {}  # an engine beside the database may be away alone
    return Look(
        at_s=rows[0]["now_s"] if rows else 0.0,
        processes=processes,
        depths=depths,
        database=None if facts is None else DatabaseLook(facts["connections"], facts["lag_s"]),
        disk_used=_disk_used(data),
    )


def _disk_used(data: Path | None) -> float | None:
    """The used share of the disk, as `df` counts it: what is kept for root is not free."""
    if data is None:
        return None
    try:
        usage = shutil.disk_usage(data)
    except OSError:
        return None
    return usage.used / max(1, usage.used + usage.free)
