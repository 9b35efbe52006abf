"""A process that dies at a chosen statement: before it is sent, or after it took effect.

Between two statements a worker's memory is all that changes, so to die at every statement, on
either side of it, is to die at every instant that matters to the database.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import Query


class Killed(BaseException):
    """No handler catches it: the process is gone."""


class MortalDatabase(Database):
    """Another process's way to the same database. Dies at statement `at` (1 is the first)."""

    def __init__(self, database: Database, at: int, *, after: bool) -> None:
        self.__dict__.update(database.__dict__)  # the same pool and address
        self._real = database
        self._at = at
        self._after = after
        self.statements = 0
        self.dead = False

    def _count(self) -> None:
        if self.dead:
            raise Killed
        self.statements += 1
        if self.statements == self._at and not self._after:
            self.dead = True
            raise Killed

    def _counted(self) -> None:
        if self.statements >= self._at and self._after:
            self.dead = True
        if self.dead:
            raise Killed

    async def fetch(
        self, query: Query, *args: Any, tx: Connection | None = None
    ) -> list[asyncpg.Record]:
        self._count()
        rows = await self._real.fetch(query, *args, tx=tx)
        if tx is None:
            self._counted()
        return rows

    async def execute(self, query: Query, *args: Any, tx: Connection | None = None) -> str:
        self._count()
        tag = await self._real.execute(query, *args, tx=tx)
        if tx is None:
            self._counted()
        return tag

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        if self.dead:
            raise Killed
        async with self._real.transaction() as tx:
            yield tx
            self._count()  # before the commit, which this rolls back
        self._counted()


class StoppableDatabase(Database):
    """Another process's way to the same database, which stands still while it is stopped."""

    def __init__(self, database: Database) -> None:
        self.__dict__.update(database.__dict__)  # the same pool and address
        self._real = database
        self.goes = asyncio.Event()
        self.goes.set()

    async def fetch(
        self, query: Query, *args: Any, tx: Connection | None = None
    ) -> list[asyncpg.Record]:
        await self.goes.wait()
        return await self._real.fetch(query, *args, tx=tx)

    async def execute(self, query: Query, *args: Any, tx: Connection | None = None) -> str:
        await self.goes.wait()
        return await self._real.execute(query, *args, tx=tx)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        await self.goes.wait()
        async with self._real.transaction() as tx:
            yield tx
