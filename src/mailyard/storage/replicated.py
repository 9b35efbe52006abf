"""The database grown: a primary that may move, and replicas that answer what may lag.

*Reads.* Inside a scope of `storage/reading.py` a query that only reads goes to the replica that is
least behind. It is given a moment to come up to where the primary was when it was asked; it must
come up to where the caller wrote last. When none does in time, the primary answers. A query that a
replica refuses (it calls a function that writes, or reads an unlogged table) is the primary's from
then on.

*Failover.* With several hosts in the address and `target_session_attrs=read-write` a new connection
finds the server that takes writes. Getting a connection is tried again for `PATIENCE_S`, and so is
a statement that only reads: these are safe. A write whose connection breaks may have been done: its
caller is told `Unavailable` and repeats it under its idempotency key, its lease, its job. A server
on an older timeline than one that was seen is an old primary: nothing is written there.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from random import Random
from time import monotonic, perf_counter
from typing import Any

import asyncpg
import structlog

from mailyard.core.backoff import Backoff
from mailyard.core.errors import Unavailable
from mailyard.observe import metrics
from mailyard.storage import array_types
from mailyard.storage.database import (
    AWAY,
    FENCED,
    Connection,
    Database,
    DatabaseAddress,
    Moving,
    given_up,
    is_lost,
    timer,
)
from mailyard.storage.hosts import hosts_of, place_of
from mailyard.storage.lag import LagClock
from mailyard.storage.queries import Query, load
from mailyard.storage.reading import Reading, is_seen_later, may_lag, only_reads, present
from mailyard.storage.replicas import (
    BEHIND_MOST_S,
    LOOK_EVERY_S,
    LOOK_TIMEOUT_S,
    READS,
    Replica,
    in_order,
)
from mailyard.storage.written import WrittenPlaces

QUERIES = load("replica")
PATIENCE_S = 10.0  # how long a failover may take before callers are told of it
FRESH_WAIT_S = 0.005  # for what others wrote
OWN_WAIT_S = 0.050  # for what the caller wrote
CONNECT_S = 3.0  # to one host: the next one is tried then
SILENT_S = 3.0  # the primary has not answered for so long: is there another?
_AGAIN = Backoff(first_s=0.05, cap_s=0.5)
_LOG = structlog.get_logger(__name__)

# What a server says that is a standby, or has become one.
_PERHAPS_STANDBYS = (
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.ObjectNotInPrerequisiteStateError,
)
# What a replica says to a query that is not for it; the third to one of an unlogged table.
_NOT_FOR_REPLICAS = (*_PERHAPS_STANDBYS, asyncpg.FeatureNotSupportedError)


class _Writes(Exception):
    """A query that seems to read calls something that writes."""


class NoPrimary(OSError):
    """A server that must not be written to. An OSError: everybody takes it as one that is away."""


class ReplicatedDatabase(Database):
    """A `Database` that reads from replicas and follows its primary. One a process."""

    def __init__(self, address: DatabaseAddress, replica_urls: Sequence[str]) -> None:
        super().__init__(address)
        self.replicas = [
            Replica(url, connections=address.connections, behind_pooler=address.behind_pooler)
            for url in replica_urls
        ]
        self.places = WrittenPlaces(self)
        self._lag = LagClock()
        self._random = Random()
        self._not_for_replicas: set[str] = set()
        self._timeline = 0
        self._last_place = ""  # of the primary: it is tried first
        self._heard_at = monotonic()
        self._alone_until = 0.0  # until then the primary answers everything
        self._watching: asyncio.Task[None] | None = None
        self._moving: asyncio.Task[None] | None = None

    async def open(self) -> None:
        await super().open()
        for replica in self.replicas:
            await replica.open()
        await self._look()
        metrics.tell("replica", self._left_out)
        self._watching = asyncio.create_task(self._watch(), name="replicas")

    async def close(self) -> None:
        for task in (self._watching, self._moving):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        for replica in self.replicas:
            replica.close()
        await super().close()

    def _left_out(self) -> dict[str, float]:
        """1 for each replica that is not read from: for alert rules (`replica.left_out`)."""
        return {f"left_out {one.name}": float(not one.usable) for one in self.replicas}

    # -- reading ------------------------------------------------------------------------------

    async def fetch(
        self, query: Query, *args: Any, tx: Connection | None = None
    ) -> list[asyncpg.Record]:
        if tx is not None:
            return await super().fetch(query, *args, tx=tx)
        started = perf_counter()
        try:
            scope = present()
            if scope is not None and may_lag(query) and query not in self._not_for_replicas:
                rows = await self._from_replica(scope, query, args)
                if rows is not None:
                    return rows
            elif scope is not None and is_seen_later(query):
                scope.mark(wrote=True)
            return await self._from_primary(query, args)
        finally:
            timer(query).observe(perf_counter() - started)

    async def execute(self, query: Query, *args: Any, tx: Connection | None = None) -> str:
        scope = present()
        if scope is not None and is_seen_later(query):
            scope.mark(wrote=True)
        return await super().execute(query, *args, tx=tx)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        scope = present()
        if scope is not None:
            scope.mark(wrote=True)  # or will have; to take a read for a write costs little
        async with super().transaction() as tx:
            yield tx

    async def _from_replica(
        self, scope: Reading, query: Query, args: Sequence[Any]
    ) -> list[asyncpg.Record] | None:
        """The rows as a replica has them; None when the primary has to be asked."""
        replica, why = await self._choose(scope)
        if replica is None:
            READS.labels("primary", why).inc()
            return None
        try:
            rows = await replica.fetch(query, args)
        except (*AWAY, asyncpg.PostgresError) as error:
            if isinstance(error, _NOT_FOR_REPLICAS):
                self._not_for_replicas.add(query)
            elif isinstance(error, AWAY) and is_lost(error):
                replica.leave(str(error) or "does not answer in time")
            READS.labels("primary", "refused").inc()
            return None  # what is wrong with the query itself, the primary says
        scope.mark(used=True)
        READS.labels("replica", "").inc()
        return rows

    async def _choose(self, scope: Reading) -> tuple[Replica | None, str]:
        """A replica that is as far as the scope wants, or why there is none."""
        fit = in_order(self.replicas)
        if not fit:
            return None, "none_fit"
        if monotonic() < self._alone_until:
            return None, "primary_moved"
        place = await self.places.find(scope.caller or b"")
        for replica in fit:
            if replica.replayed >= place.head:
                return replica, ""
        best = fit[0]
        if await best.reach(place.head, OWN_WAIT_S if scope.head else FRESH_WAIT_S):
            return best, ""
        own = max(place.own, scope.position or 0)
        if not scope.head and await best.reach(own, OWN_WAIT_S):
            return best, ""
        return None, "behind"

    async def _from_primary(self, query: Query, args: Sequence[Any]) -> list[asyncpg.Record]:
        """As the primary has it; what only reads is asked again while the primary moves.

        Again only in a transaction that cannot write: the query may call a function that does.
        """
        try:
            async with self.connection() as connection:
                return await connection.fetch(query, *args)
        except Unavailable as error:
            if not only_reads(query):
                raise
            first = error
        until, failures = monotonic() + PATIENCE_S, 1
        while monotonic() < until:
            await asyncio.sleep(_AGAIN.delay_s(failures, self._random))
            try:
                async with self.connection() as connection:
                    return await _fetch_only(connection, query, args)
            except Unavailable:
                failures += 1
            except _Writes:
                break
        raise first

    async def wrote(self, caller: bytes) -> int:
        """Remember that `caller` has written until now; the place. Raises Unavailable."""
        return await self.places.note(caller)

    # -- the primary --------------------------------------------------------------------------

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """As the plain database's; waits for a primary up to PATIENCE_S."""
        pool, acquired = await self._acquire()
        try:
            try:
                with given_up(acquired):
                    yield acquired
            finally:
                await pool.release(acquired)
        except (
            asyncpg.ReadOnlySQLTransactionError,
            asyncpg.ObjectNotInPrerequisiteStateError,
        ) as e:
            if not _is_standbys(e):
                raise
            self._move("the server takes no writes any more")
            raise Unavailable(f"PostgreSQL takes no writes: {e}") from e
        except AWAY as error:
            if not is_lost(error):
                raise
            raise Unavailable(f"PostgreSQL is away: {error}") from error
        except asyncpg.PostgresError as error:
            if error.sqlstate != FENCED:
                raise
            raise Moving(str(error)) from error

    async def _acquire(self) -> "tuple[asyncpg.Pool[asyncpg.Record], Connection]":
        until, failures = monotonic() + PATIENCE_S, 0
        while True:
            pool = self.pool
            try:
                return pool, await pool.acquire()
            except AWAY as error:
                failures += 1
                if not is_lost(error) or monotonic() > until:
                    raise Unavailable(f"PostgreSQL does not answer: {error}") from error
            await asyncio.sleep(_AGAIN.delay_s(failures, self._random))

    async def direct(self) -> "asyncpg.Connection[asyncpg.Record]":
        try:
            return await self._connect(
                self._address.direct_url,
                server_settings={"application_name": "mailyard", "timezone": "UTC"},
                connection_class=array_types.Connection,
            )
        except AWAY as error:
            raise Unavailable(f"PostgreSQL does not answer: {error}") from error

    def _pool_settings(self) -> dict[str, Any]:
        return {**super()._pool_settings(), "connect": self._connect}

    async def _connect(self, url: str, **settings: Any) -> "asyncpg.Connection[asyncpg.Record]":
        """A connection to the host that takes writes. Raises one of AWAY."""
        hosts = sorted(hosts_of(url), key=lambda one: place_of(one) != self._last_place)
        trouble: BaseException | None = None
        for host in hosts:
            try:
                async with asyncio.timeout(CONNECT_S):
                    connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(
                        host, **settings
                    )
            except AWAY as error:
                trouble = error
                continue
            try:
                await self._recognise(connection)
            except (*AWAY, asyncpg.PostgresError) as error:
                connection.terminate()
                trouble = error
                continue
            self._last_place = place_of(host)
            return connection
        raise NoPrimary(f"no host takes writes: {trouble or 'none is named'}") from trouble

    async def _recognise(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        """The server takes writes, and is not one that another has replaced. Raises NoPrimary."""
        row = await connection.fetchrow(QUERIES.head, timeout=CONNECT_S)
        assert row is not None, "a SELECT without FROM has one row"
        if row["timeline"] < self._timeline:
            raise NoPrimary(
                f"the server is on timeline {row['timeline']}, but {self._timeline} was seen: it "
                "is an old primary; stop it"
            )
        if self._timeline and row["timeline"] > self._timeline:
            self._another_leads(row["timeline"])
        self._timeline = row["timeline"]

    def _another_leads(self, timeline: int) -> None:
        """The callers' places are gone with the old primary: for a while it answers alone."""
        _LOG.warning("another_primary", timeline=timeline)
        self._alone_until = monotonic() + BEHIND_MOST_S
        for replica in self.replicas:
            replica.began_anew()

    # -- watching -----------------------------------------------------------------------------

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                await self._look()
            except Exception as error:
                _LOG.warning("replicas_not_watched", error=str(error), exc_info=error)

    async def _look(self) -> None:
        await self._look_at_primary()
        await asyncio.gather(*(replica.look(self._lag) for replica in self.replicas))

    async def _look_at_primary(self) -> None:
        try:
            async with asyncio.timeout(LOOK_TIMEOUT_S), self.pool.acquire() as connection:
                row = await connection.fetchrow(QUERIES.head)
        except (*AWAY, asyncpg.PostgresError) as error:
            if _is_standbys(error):
                self._move("the server has become a standby")
            elif monotonic() - self._heard_at > SILENT_S:
                await self._look_for_another()
            return
        assert row is not None, "a SELECT without FROM has one row"
        self._heard_at = monotonic()
        self._lag.note(self._heard_at, row["position"])

    async def _look_for_another(self) -> None:
        """Connections to a host that went silent wait for long: when another leads, cut them."""
        before = self._timeline
        try:
            connection = await self.direct()
        except Unavailable:
            return
        connection.terminate()
        if self._timeline > before:
            self._move("another server leads")

    def _move(self, reason: str) -> None:
        """Connect anew, and cut what still hangs on the old server. Once at a time."""
        if self._moving is None or self._moving.done():
            _LOG.warning("connecting_anew", reason=reason)
            self._moving = asyncio.create_task(self._connect_anew(), name="connect-anew")

    async def _connect_anew(self) -> None:
        failures = 0
        while True:
            try:
                pool = await self._make_pool()
                break
            except Unavailable:
                failures += 1
            await asyncio.sleep(_AGAIN.delay_s(failures, self._random))
        old, self._pool = self._pool, pool
        if old is not None:
            old.terminate()


async def _fetch_only(
    connection: Connection, query: Query, args: Sequence[Any]
) -> list[asyncpg.Record]:
    """All rows of `query`, which may change nothing. Raises _Writes when it wants to."""
    async with connection.transaction(readonly=True):
        try:
            rows: list[asyncpg.Record] = await connection.fetch(query, *args)
            return rows
        except asyncpg.ReadOnlySQLTransactionError as error:
            raise _Writes from error


def _is_standbys(error: BaseException) -> bool:
    """Whether a server says so because it is, or has become, a standby."""
    if isinstance(error, asyncpg.ObjectNotInPrerequisiteStateError):
        return "recovery is in progress" in str(error)
    return isinstance(error, asyncpg.ReadOnlySQLTransactionError)
