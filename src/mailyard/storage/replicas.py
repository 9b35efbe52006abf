"""The replicas: how far each one is, which of them is fit to be read from, and the reading."""

import asyncio
from collections.abc import Sequence
from time import monotonic
from typing import Any

import asyncpg
import structlog
from prometheus_client import Counter, Gauge

from mailyard.observe.metrics import REGISTRY
from mailyard.storage import array_types
from mailyard.storage.database import AWAY
from mailyard.storage.hosts import place_of
from mailyard.storage.lag import LagClock
from mailyard.storage.queries import Query, load
from mailyard.storage.written import Together

QUERIES = load("replica")
LOOK_EVERY_S = 1.0
LOOK_TIMEOUT_S = 2.0
BEHIND_MOST_S = 5.0  # further behind than this it is left out …
BEHIND_BACK_S = 2.0  # … and comes back when it is no further than this
READ_S = 10.0  # a read that takes a replica longer is asked of the primary
_POLL_FIRST_S = 0.0005
_POLL_MOST_S = 0.008
_NOT_ASKED = "was not asked yet"
_LAG_STEP_S = 0.1  # replicas that are as far behind as this share the work
_LOG = structlog.get_logger(__name__)

LAG_SECONDS = Gauge(
    "mailyard_replica_lag_seconds",
    "How long the replica has lacked what the primary has.",
    ["replica"],
    registry=REGISTRY,
)
USABLE = Gauge(
    "mailyard_replica_usable",
    "1 while the replica answers and is not too far behind, else 0.",
    ["replica"],
    registry=REGISTRY,
)
READS = Counter(
    "mailyard_replica_reads_total",
    "Reads that may be a replica's, by who answered and, for the primary, why.",
    ["where", "why"],
    registry=REGISTRY,
)


class Replica:
    """One standby server and a pool of connections to it."""

    def __init__(self, url: str, *, connections: int, behind_pooler: bool) -> None:
        self.name = place_of(url)
        self.url = url
        self.usable = False
        self.lag_s = 0.0
        self.replayed = 0
        self.busy = 0
        self.trouble = _NOT_ASKED
        self._connections = connections
        self._behind_pooler = behind_pooler
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._asking: Together[str, None] = Together(self._ask)

    async def open(self) -> None:
        """Make the pool. Connects when first asked: a replica that is away stops no start."""
        self._pool = await asyncpg.create_pool(
            self.url,
            min_size=0,
            max_size=self._connections,
            max_inactive_connection_lifetime=300.0,
            command_timeout=READ_S,
            timeout=LOOK_TIMEOUT_S,
            statement_cache_size=0 if self._behind_pooler else 256,
            server_settings={"application_name": "mailyard read", "timezone": "UTC"},
            reset=_as_it_is,
            connection_class=array_types.Connection,
        )

    def close(self) -> None:
        if self._pool is not None:
            self._pool.terminate()

    async def look(self, clock: LagClock) -> None:
        """Ask how far it is, and decide whether it may be read from. Never raises."""
        try:
            async with asyncio.timeout(LOOK_TIMEOUT_S):
                await self._asking("replayed")
        except (*AWAY, asyncpg.PostgresError, _NotStandby) as error:
            self.leave(str(error) or "does not answer in time")
            return
        self.lag_s = clock.behind_s(self.replayed, monotonic())
        LAG_SECONDS.labels(self.name).set(self.lag_s)
        limit_s = BEHIND_MOST_S if self.usable else BEHIND_BACK_S
        if self.lag_s > limit_s:
            self.leave(f"is {self.lag_s:.1f} s behind")
        elif not self.usable:
            if self.trouble != _NOT_ASKED:
                _LOG.info("replica_joins", replica=self.name, lag_s=round(self.lag_s, 3))
            self.usable, self.trouble = True, ""
            USABLE.labels(self.name).set(1)

    def leave(self, trouble: str) -> None:
        """Leave it out until a look finds it well."""
        if self.usable:
            _LOG.warning("replica_left_out", replica=self.name, reason=trouble)
        self.usable, self.trouble = False, trouble
        USABLE.labels(self.name).set(0)

    async def reach(self, position: int, patience_s: float) -> bool:
        """Whether it has replayed the log up to `position`, within `patience_s`."""
        until, pause_s = monotonic() + patience_s, _POLL_FIRST_S
        while self.replayed < position:
            try:
                async with asyncio.timeout(max(0.001, until - monotonic())):
                    await self._asking("replayed")
            except (*AWAY, asyncpg.PostgresError, _NotStandby):
                return False
            if self.replayed >= position:
                break
            if monotonic() + pause_s > until:
                return False
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _POLL_MOST_S)
        return True

    async def fetch(self, query: Query, args: Sequence[Any]) -> list[asyncpg.Record]:
        """All rows of `query`. Raises what the driver raises."""
        assert self._pool is not None, "a replica is opened with its database"
        self.busy += 1
        try:
            async with self._pool.acquire(timeout=LOOK_TIMEOUT_S) as connection:
                rows: list[asyncpg.Record] = await connection.fetch(query, *args)
                return rows
        finally:
            self.busy -= 1

    async def _ask(self, keys: Sequence[str]) -> dict[str, None]:
        (row,) = await self.fetch(QUERIES.replayed, ())
        if not row["standby"]:
            raise _NotStandby("is no standby (it may have been promoted)")
        self.replayed = max(self.replayed, row["position"])
        return dict.fromkeys(keys)

    def began_anew(self) -> None:
        """Another primary leads: what was known of the replica's place is known no more."""
        self.replayed = 0


class _NotStandby(Exception):
    """The server takes writes: it is not read from as a replica."""


async def _as_it_is(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Nobody leaves session state on a connection; see `storage/database.py`."""


def in_order(replicas: Sequence[Replica]) -> list[Replica]:
    """Those that may be read from, the least behind first, and of equals the least busy."""
    fit = [replica for replica in replicas if replica.usable]
    return sorted(fit, key=lambda one: (round(one.lag_s / _LAG_STEP_S), one.busy))
