"""A cache that all processes share, in an unlogged table: no write-ahead log, empty after a crash
of the server. For installations without Redis."""

from collections.abc import Mapping, Sequence
from uuid import UUID

import asyncpg
import structlog

from mailyard.cache.cache import kept
from mailyard.core.errors import Unavailable
from mailyard.storage.database import Database
from mailyard.storage.queries import load

_SQL = load("cache")
_LOG = structlog.get_logger(__name__)
_AWAY = (Unavailable, asyncpg.PostgresError, asyncpg.InterfaceError, OSError)
SWEEP_ROWS = 5_000


class PostgresCache:
    """Values in the platform's database."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def get(self, workspace_id: UUID, keys: Sequence[str]) -> dict[str, bytes]:
        try:
            rows = await self._database.fetch(_SQL.get_entries, workspace_id, list(keys))
        except _AWAY as error:
            _LOG.warning("cache not read", error=str(error))
            return {}
        return {row["key"]: row["value"] for row in rows}

    async def put(self, workspace_id: UUID, values: Mapping[str, bytes], ttl_s: float) -> None:
        entries = kept(values)
        if not entries:
            return
        try:
            await self._database.execute(
                _SQL.put_entries, workspace_id, list(entries), list(entries.values()), ttl_s
            )
        except _AWAY as error:
            _LOG.warning("cache not written", error=str(error))

    async def drop(self, workspace_id: UUID, keys: Sequence[str]) -> None:
        try:
            await self._database.execute(_SQL.drop_entries, workspace_id, list(keys))
        except _AWAY as error:
            _LOG.warning("cache not written", error=str(error))

    async def clear(self) -> bool:
        try:
            await self._database.execute(_SQL.clear_entries)
        except _AWAY as error:
            _LOG.warning("cache not emptied", error=str(error))
            return False
        return True

    async def sweep(self) -> None:
        """Free the room of what has run out."""
        while True:
            tag = await self._database.execute(_SQL.expired_entries, SWEEP_ROWS)
            if int(tag.rsplit(" ", 1)[-1]) < SWEEP_ROWS:
                return
