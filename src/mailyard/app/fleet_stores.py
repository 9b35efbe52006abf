"""What a fleet keeps in Redis: cache, limits, leases, wake-ups, presence; all over one link."""

import asyncio
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING
from uuid import UUID

from mailyard.core.clock import Clock
from mailyard.settings import Settings
from mailyard.storage.database import Database

if TYPE_CHECKING:
    from mailyard.bus.adapters.fleet import FleetBus
    from mailyard.bus.adapters.postgres_presence import PostgresPresence
    from mailyard.bus.adapters.redis_presence import FleetPresence
    from mailyard.bus.presence import Crowd
    from mailyard.cache.adapters.redis import RedisCache
    from mailyard.ratelimit.adapters.fleet import FleetRateLimit
    from mailyard.ratelimit.adapters.fleet_leases import FleetLeases
    from mailyard.storage.redis.facts import RedisFacts
    from mailyard.storage.redis.link import RedisLink

FIGURES_S = 1.0


@dataclass(frozen=True, slots=True)
class RedisFigures:
    """How Redis is. `facts` None: it is away, for `away_s` seconds."""

    servers: str
    away_s: float
    why: str
    facts: "RedisFacts | None"


class FleetStores:
    """The adapters over `link`; each goes on in its own way while Redis is away."""

    def __init__(self, *, link: "RedisLink", database: Database, clock: Clock) -> None:
        self.link = link
        self._database = database
        self._clock = clock

    async def meet(self, table: "PostgresPresence") -> None:
        """Know how many go by the limits, before there is a Redis to ask. Raises Unavailable."""
        self.crowd.note(await table.who())

    async def figures(self) -> RedisFigures:
        """For pages; asks Redis."""
        from mailyard.storage.redis.facts import read_facts

        servers = self.link.address.shown()
        facts = None
        if self.link.up:
            client = self.link.client()
            try:
                async with asyncio.timeout(FIGURES_S):
                    facts = await read_facts(client)
            except client.errors as error:
                return RedisFigures(servers, self.link.away_s(), repr(error), None)
        return RedisFigures(servers, self.link.away_s(), self.link.why, facts)

    @cached_property
    def crowd(self) -> "Crowd":
        from mailyard.bus.presence import Crowd

        return Crowd()

    @cached_property
    def bus(self) -> "FleetBus":
        from mailyard.bus.adapters.fleet import FleetBus

        return FleetBus(link=self.link, database=self._database, clock=self._clock)

    @cached_property
    def cache(self) -> "RedisCache":
        from mailyard.cache.adapters.redis import RedisCache

        return RedisCache(link=self.link)

    @cached_property
    def limits(self) -> "FleetRateLimit":
        from mailyard.ratelimit.adapters.fleet import FleetRateLimit
        from mailyard.ratelimit.adapters.redis import RedisRateLimit

        return FleetRateLimit(
            shared=RedisRateLimit(link=self.link),
            processes=self.crowd.processes,
            clock=self._clock,
        )

    def leases(self, process_id: UUID) -> "FleetLeases":
        from mailyard.ratelimit.adapters.fleet_leases import FleetLeases
        from mailyard.ratelimit.adapters.redis_leases import RedisLeases

        return FleetLeases(
            shared=RedisLeases(link=self.link),
            place=lambda: self.crowd.place(process_id),
            clock=self._clock,
        )

    def presence(self, table: "PostgresPresence") -> "FleetPresence":
        from mailyard.bus.adapters.redis_presence import FleetPresence, RedisPresence

        return FleetPresence(redis=RedisPresence(link=self.link), table=table, crowd=self.crowd)


def fleet_stores(settings: Settings, database: Database, clock: Clock) -> FleetStores | None:
    """None: the settings name no Redis, and PostgreSQL does it all."""
    if not settings.redis_url:
        return None
    from mailyard.storage.redis.address import parse_address
    from mailyard.storage.redis.link import RedisLink

    address = parse_address(settings.redis_url)
    if settings.shard:  # what is cached and counted is the cluster's
        address = replace(address, prefix=f"{address.prefix}-{settings.shard}")
    link = RedisLink(address)
    return FleetStores(link=link, database=database, clock=clock)
