"""People's fields and preferences for templates, a minute old at most (`sending/personal.py`)."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar
from uuid import UUID

import msgspec

from mailyard.cache.cache import Cache
from mailyard.storage.database import Database
from mailyard.storage.queries import load

_SQL = load("personal")
KEPT_S = 60.0
_CONTACT = "email:contact:"
_PREFERENCES = "email:preferences:"

T = TypeVar("T")


class CachedPersonal:
    """Reads contacts and topics, through a cache."""

    def __init__(self, *, database: Database, cache: Cache) -> None:
        self._database = database
        self._cache = cache

    async def contacts(
        self, workspace_id: UUID, addresses: Sequence[str]
    ) -> dict[str, dict[str, Any]]:
        """Fields and attributes by normalised address, of those who are contacts."""

        async def read(wanted: Sequence[str]) -> dict[str, dict[str, Any] | None]:
            rows = await self._database.fetch(_SQL.contacts_at, workspace_id, wanted)
            found: dict[str, dict[str, Any] | None] = dict.fromkeys(wanted)
            for row in rows:
                found[row["address"]] = {
                    **msgspec.json.decode(row["attributes"]),
                    "name": row["name"],
                    "address": row["address"],
                }
            return found

        known = await self._through(workspace_id, _CONTACT, addresses, read)
        return {address: fields for address, fields in known.items() if fields is not None}

    async def preferences(
        self, workspace_id: UUID, addresses: Sequence[str]
    ) -> dict[str, dict[str, bool]]:
        """For each normalised address whether it gets each topic, by the topics' names."""

        async def read(wanted: Sequence[str]) -> dict[str, dict[str, bool]]:
            topics = await self._database.fetch(_SQL.topics, workspace_id)
            silent = {row["name"]: not row["on_request"] for row in topics}
            found = {address: dict(silent) for address in wanted}
            for row in await self._database.fetch(_SQL.said, workspace_id, wanted):
                found[row["address"]][row["name"]] = row["subscribed"]
            return found

        return await self._through(workspace_id, _PREFERENCES, addresses, read)

    async def _through(
        self,
        workspace_id: UUID,
        prefix: str,
        addresses: Sequence[str],
        read: Callable[[Sequence[str]], Awaitable[dict[str, T]]],
    ) -> dict[str, T]:
        """What the cache has, and the rest as `read` gives it."""
        cached = await self._cache.get(workspace_id, [prefix + one for one in addresses])
        found: dict[str, T] = {
            key.removeprefix(prefix): msgspec.json.decode(value) for key, value in cached.items()
        }
        missing = [address for address in addresses if address not in found]
        if missing:
            fresh = await read(missing)
            found.update(fresh)
            values = {prefix + address: msgspec.json.encode(one) for address, one in fresh.items()}
            await self._cache.put(workspace_id, values, KEPT_S)
        return found
