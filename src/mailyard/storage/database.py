"""The database as the rooms see it: a pool for short statements, and direct connections.

Two addresses (DESIGN section 4): the pooled one may pass through PgBouncer in transaction mode,
the direct one carries LISTEN, advisory locks and migrations. Every statement is a named Query, and
its time is counted under that name, because the embedded PostgreSQL has no pg_stat_statements.
"""

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import cache
from time import perf_counter
from typing import TYPE_CHECKING, Any

import asyncpg
from asyncpg.pool import PoolConnectionProxy
from prometheus_client import Histogram

from mailyard.core.errors import ConfigurationError, Unavailable
from mailyard.observe.metrics import QUERY_SECONDS
from mailyard.storage import array_types
from mailyard.storage.hosts import unanswered
from mailyard.storage.queries import Query, name_of

if TYPE_CHECKING:
    Connection = PoolConnectionProxy[asyncpg.Record]
else:  # the class is generic only to the type checker
    Connection = PoolConnectionProxy

AWAY = (
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InsufficientResourcesError,  # too many connections, no memory, a full disk
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a pooler that has lost its server says so out of turn
    asyncpg.TargetServerAttributeNotMatched,  # of several hosts none takes writes now
    ConnectionError,
    TimeoutError,
    OSError,
)

# How the guard of a workspace that moves refuses a change (0050_shards.sql).
FENCED = "MY001"

# What the driver says of a connection that is gone, among its complaints about wrong calls.
_LOST = re.compile("closed|closing|released back to the pool")
_OUT_OF_TURN = "another operation"  # where a caller has his connection to himself, as here


class Moving(Unavailable):
    """The workspace moves to another cluster at this moment, or is there already."""


@dataclass(frozen=True, slots=True)
class DatabaseAddress:
    """Where PostgreSQL is. `direct_url` equals `url` unless a pooler stands between."""

    url: str
    direct_url: str
    connections: int
    behind_pooler: bool = False


async def _as_it_is(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Nobody leaves session state on a pooled connection (a pooler would lose it), so the reset
    that asyncpg sends at every release, a second round trip a statement, has nothing to do."""


class Database:
    """A pool of `connections` to the primary. Open it once a process; close it at the end."""

    def __init__(self, address: DatabaseAddress) -> None:
        self._address = address
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None

    async def open(self) -> None:
        """Connect. Raises Unavailable when the server does not answer."""
        self._pool = await self._make_pool()

    async def _make_pool(self) -> "asyncpg.Pool[asyncpg.Record]":
        try:
            return await asyncpg.create_pool(self._address.url, **self._pool_settings())
        except AWAY as error:
            raise Unavailable(unanswered(self._address.url, error)) from error

    def _pool_settings(self) -> dict[str, Any]:
        return {
            "min_size": 1,
            "max_size": self._address.connections,
            "max_inactive_connection_lifetime": 300.0,
            "command_timeout": 60.0,
            # A pooler may change the server after each statement: none keeps a name. Without a
            # name the driver parses and runs it before any Sync, which is all on one server.
            "statement_cache_size": 0 if self._address.behind_pooler else 256,
            "server_settings": {"application_name": "mailyard", "timezone": "UTC"},
            "reset": _as_it_is,
            "connection_class": array_types.Connection,
        }

    async def close(self) -> None:
        if self._pool is not None:
            await self._pool.close()
            self._pool = None

    @property
    def direct_url(self) -> str:
        """The address that passes no pooler: for migrations."""
        return self._address.direct_url

    @property
    def pool(self) -> "asyncpg.Pool[asyncpg.Record]":
        if self._pool is None:
            raise ConfigurationError("the database was used before it was opened")
        return self._pool

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A pooled connection for a few statements. Raises Unavailable when PostgreSQL is away."""
        try:
            async with self.pool.acquire() as connection:
                with given_up(connection):
                    yield connection
        except AWAY as error:
            if not is_lost(error):
                raise
            raise Unavailable(f"PostgreSQL is away: {error}") from error
        except asyncpg.PostgresError as error:
            if error.sqlstate != FENCED:
                raise
            raise Moving(str(error)) from error

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A pooled connection inside one transaction. Never keep it open across network I/O."""
        async with self.connection() as connection, connection.transaction():
            yield connection

    async def direct(self) -> "asyncpg.Connection[asyncpg.Record]":
        """A connection of the caller's own, past any pooler. The caller closes it."""
        try:
            return await asyncpg.connect(
                self._address.direct_url,
                server_settings={"application_name": "mailyard", "timezone": "UTC"},
                connection_class=array_types.Connection,
            )
        except AWAY as error:
            raise Unavailable(f"PostgreSQL does not answer: {error}") from error

    async def fetch(
        self, query: Query, *args: Any, tx: Connection | None = None
    ) -> list[asyncpg.Record]:
        """All rows of `query`, on `tx` when given."""
        started = perf_counter()
        try:
            if tx is not None:
                return await tx.fetch(query, *args)
            async with self.connection() as connection:
                return await connection.fetch(query, *args)
        finally:
            timer(query).observe(perf_counter() - started)

    async def fetchrow(
        self, query: Query, *args: Any, tx: Connection | None = None
    ) -> asyncpg.Record | None:
        """The first row of `query`, or None."""
        rows = await self.fetch(query, *args, tx=tx)
        return rows[0] if rows else None

    async def fetchval(self, query: Query, *args: Any, tx: Connection | None = None) -> Any:
        """The first column of the first row of `query`, or None."""
        row = await self.fetchrow(query, *args, tx=tx)
        return row[0] if row is not None else None

    async def execute(self, query: Query, *args: Any, tx: Connection | None = None) -> str:
        """Run `query`; returns PostgreSQL's command tag (`UPDATE 3`)."""
        started = perf_counter()
        try:
            if tx is not None:
                return await tx.execute(query, *args)
            async with self.connection() as connection:
                return await connection.execute(query, *args)
        finally:
            timer(query).observe(perf_counter() - started)


def is_lost(error: BaseException) -> bool:
    """Whether one of AWAY is of the server, not a mistake in the call, which no waiting mends."""
    if isinstance(error, asyncpg.InternalClientError):
        return _OUT_OF_TURN in str(error)
    return not isinstance(error, asyncpg.InterfaceError) or _LOST.search(str(error)) is not None


@contextmanager
def given_up(connection: Connection) -> Iterator[None]:
    """A connection on which the driver has lost its place is used by nobody any more."""
    try:
        yield
    except asyncpg.InternalClientError:
        connection.terminate()
        raise


def timer(query: Query) -> Histogram:
    """Where the time of `query` is counted."""
    return _timer_of(name_of(query))


@cache
def _timer_of(name: str) -> Histogram:
    return QUERY_SECONDS.labels(name)
