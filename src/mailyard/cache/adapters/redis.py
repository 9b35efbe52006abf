"""A cache that the whole fleet shares, in Redis. The keys of a workspace lie in one slot, so that
many are one request. With Redis away it is empty, and nobody waits for it."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from mailyard.cache.cache import kept
from mailyard.core.limits import MIB
from mailyard.observe.metrics import REDIS_FALLBACKS
from mailyard.storage.redis.link import RedisAway, RedisLink
from mailyard.storage.redis.script import command

VALUE_BYTES = MIB  # a larger one would make others wait, whom the link's limit of time then fails
_UNLINKED_AT_ONCE = 200
_MISSES = REDIS_FALLBACKS.labels("cache")


class RedisCache:
    """Values under `<prefix>c:{<workspace>}:<key>`, gone when their time has run out."""

    def __init__(self, *, link: RedisLink) -> None:
        self._link = link

    async def get(self, workspace_id: UUID, keys: Sequence[str]) -> dict[str, bytes]:
        if not keys:
            return {}
        names = [self._link.key("c", workspace_id.hex, key) for key in keys]
        try:
            [values] = await self._link.run([command("MGET", *names)])
        except RedisAway:
            _MISSES.inc()
            return {}
        return {key: value for key, value in zip(keys, values, strict=True) if value is not None}

    async def put(self, workspace_id: UUID, values: Mapping[str, bytes], ttl_s: float) -> None:
        ttl_ms = round(ttl_s * 1000)
        if ttl_ms <= 0:
            await self.drop(workspace_id, list(values))
            return
        entries = {key: value for key, value in kept(values).items() if len(value) <= VALUE_BYTES}
        if not entries:
            return
        try:
            await self._link.run(
                [
                    command("SET", self._link.key("c", workspace_id.hex, key), value, "PX", ttl_ms)
                    for key, value in entries.items()
                ]
            )
        except RedisAway:
            _MISSES.inc()

    async def drop(self, workspace_id: UUID, keys: Sequence[str]) -> None:
        if not keys:
            return
        names = [self._link.key("c", workspace_id.hex, key) for key in keys]
        try:
            await self._link.run([command("UNLINK", *names)])
        except RedisAway:
            _MISSES.inc()

    async def clear(self) -> bool:
        """By walking through the keys of every primary: what is put meanwhile may stay, as what is
        put behind it does."""
        pattern = self._link.key("c", "*", "*")
        try:
            async for names in self._link.walk(pattern):
                for at in range(0, len(names), _UNLINKED_AT_ONCE):
                    part = names[at : at + _UNLINKED_AT_ONCE]
                    # One key a command: in a cluster a command's keys lie in one slot.
                    await self._link.run([command("UNLINK", name) for name in part])
        except RedisAway:
            return False
        return True
