"""The layers below the process: shared (any `Cache`), and the table of results.

A value is stored with the snapshot that its making could see at least. A change that names one of
its tags and was not in that snapshot makes it nothing, whenever it was stored: so a value that was
made before a change and stored after it is never given.
"""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

import asyncpg
import msgspec
import structlog

from mailyard.cache.cache import Cache
from mailyard.cache.change_log import ChangeLog
from mailyard.core.errors import Unavailable
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

_SQL = load("cache")
_LOG = structlog.get_logger(__name__)
_AWAY = (Unavailable, asyncpg.PostgresError, asyncpg.InterfaceError, OSError)
RESULT_BYTES = 1024 * 1024  # a larger result is not kept
RESULTS = 200_000  # of those that run out; what is true for ever is not counted
SWEEP_ROWS = 5_000
CHANGES_KEPT_S = 900.0  # longer than any layer keeps a tagged value


class _Sealed(msgspec.Struct, array_like=True):
    """A shared value: what its making saw, its tags, and itself."""

    made: str
    tags: list[str]
    value: bytes


_unseal = msgspec.msgpack.Decoder(_Sealed).decode


class Kept(NamedTuple):
    """A value from a lower layer, and for how many seconds it is good there (None: for ever)."""

    value: bytes
    left_s: float | None


class SharedLayer:
    """Values that all processes share, through the port of the cache."""

    def __init__(self, *, cache: Cache, log: ChangeLog) -> None:
        self._cache = cache
        self._log = log

    async def clear(self) -> bool:
        """Empty it. False: it is away."""
        return await self._cache.clear()

    async def get(self, workspace_id: UUID, key: str) -> bytes | None:
        found = (await self._cache.get(workspace_id, [key])).get(key)
        if found is None:
            return None
        try:
            sealed = _unseal(found)
        except msgspec.MsgspecError:  # of another version of this program
            return None
        if sealed.tags and await self._log.changed_since(workspace_id, sealed.tags, sealed.made):
            return None
        return sealed.value

    async def put(
        self,
        workspace_id: UUID,
        key: str,
        value: bytes,
        tags: Sequence[str],
        made: str,
        ttl_s: float,
    ) -> None:
        sealed = msgspec.msgpack.encode(_Sealed(made, list(tags), value))
        await self._cache.put(workspace_id, {key: sealed}, ttl_s)


class ResultTable:
    """Results that are dear to make, in a table of their own."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def get(self, workspace_id: UUID, kind: str, key: str) -> Kept | None:
        try:
            row = await self._database.fetchrow(_SQL.get_result, workspace_id, kind, key)
        except _AWAY as error:
            _LOG.warning("results not read", error=str(error))
            return None
        return None if row is None else Kept(row["value"], row["left_s"])

    async def put(
        self,
        workspace_id: UUID,
        kind: str,
        key: str,
        value: bytes,
        tags: Sequence[str],
        made: str,
        ttl_s: float | None,
    ) -> None:
        if len(value) > RESULT_BYTES:
            return
        try:
            await self._database.execute(
                _SQL.put_result, workspace_id, kind, key, value, list(tags), made, ttl_s
            )
        except _AWAY as error:
            _LOG.warning("results not written", error=str(error))

    async def clear(self, tx: Connection) -> None:
        """Forget every result, of every workspace."""
        await self._database.execute(_SQL.clear_results, tx=tx)

    async def sweep(self) -> None:
        """Free what has run out, what is too much, and the changes that nobody asks for."""
        while True:
            tag = await self._database.execute(_SQL.sweep_results, SWEEP_ROWS)
            if int(tag.rsplit(" ", 1)[-1]) < SWEEP_ROWS:
                break
        await self._database.execute(_SQL.trim_results, RESULTS)
        await self._database.execute(_SQL.forget_changes, CHANGES_KEPT_S)
