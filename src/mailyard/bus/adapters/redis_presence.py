"""Presence in Redis, and presence of a fleet: Redis as long as it is there, else the table."""

from typing import Any
from uuid import UUID

import msgspec

from mailyard.bus.adapters.postgres_presence import PostgresPresence
from mailyard.bus.presence import HERE_S, Crowd, Here
from mailyard.core.clock import Clock
from mailyard.storage.redis.link import RedisAway, RedisLink
from mailyard.storage.redis.script import Argument, run, script_of

_read = msgspec.json.Decoder(Here).decode


class RedisPresence:
    """Raises RedisAway when Redis is."""

    def __init__(
        self, *, link: RedisLink, clock: Clock | None = None, here_s: float = HERE_S
    ) -> None:
        self._link = link
        self._clock = clock
        self._here_ms = round(here_s * 1000)
        self._script = script_of("mailyard.bus.adapters", "presence")
        self._keys = [link.key("p", "p", "until"), link.key("p", "p", "said")]

    async def beat(self, here: Here) -> list[Here]:
        said = msgspec.json.encode(msgspec.structs.replace(here, stats="{}"))
        return await self._do("beat", here.id.hex, self._here_ms, said)

    async def who(self) -> list[Here]:
        return await self._do("who")

    async def leave(self, id: UUID) -> None:
        await self._do("leave", id.hex)

    async def _do(self, *words: Argument) -> list[Here]:
        now = "" if self._clock is None else f"{self._clock.now().timestamp() * 1000:.0f}"
        answers: list[Any] = await self._link.run([run(self._script, self._keys, [now, *words])])
        return [_read(said) for said in answers[0]]


class FleetPresence:
    """Beats in both; notes in `crowd` who is there."""

    def __init__(self, *, redis: RedisPresence, table: PostgresPresence, crowd: Crowd) -> None:
        self._redis = redis
        self._table = table
        self._crowd = crowd

    async def beat(self, here: Here) -> list[Here]:
        await self._table.enter(here)
        try:
            there = await self._redis.beat(here)
        except RedisAway:
            there = await self._table.who()
        self._crowd.note(there)
        return there

    async def who(self) -> list[Here]:
        try:
            return await self._redis.who()
        except RedisAway:
            return await self._table.who()

    async def leave(self, id: UUID) -> None:
        await self._table.leave(id)
        try:
            await self._redis.leave(id)
        except RedisAway:
            return  # it is not there any more after HERE_S
