"""The contract of the bus on Redis, by itself and with PostgreSQL behind it."""

import asyncio
from collections.abc import AsyncIterator

import contract.test_bus as contract
import pytest
from contract_cases import cases_of

from mailyard.bus.adapters.fleet import FleetBus
from mailyard.bus.adapters.redis import RedisBus
from mailyard.bus.bus import Bus
from mailyard.core.clock import SystemClock
from mailyard.storage.database import Database
from mailyard.storage.redis.address import parse_address
from mailyard.storage.redis.link import RedisLink


@pytest.fixture(params=["redis", "fleet"])
async def buses(
    request: pytest.FixtureRequest, redis_url: str, database: Database
) -> AsyncIterator[tuple[Bus, Bus]]:
    """(who announces, who listens), each over a link of its own."""

    def make(link: RedisLink) -> RedisBus | FleetBus:
        if request.param == "redis":
            return RedisBus(link=link)
        return FleetBus(link=link, database=database, clock=SystemClock())

    links = [RedisLink(parse_address(redis_url), call_s=10.0) for _ in range(2)]
    pair = make(links[0]), make(links[1])
    for link, bus in zip(links, pair, strict=True):
        await link.open()
        await bus.open()
    for bus in pair:
        await settled(bus)
    yield pair
    for link, bus in zip(links, pair, strict=True):
        await bus.close()
        await link.close()


async def settled(bus: RedisBus | FleetBus) -> None:
    """When it listens everywhere: each beginning wakes everybody once."""
    redis = bus if isinstance(bus, RedisBus) else bus._redis
    while not redis.listens:
        await asyncio.sleep(0.01)
    if isinstance(bus, FleetBus):
        news = bus.subscribe("anything")
        for _ in range(2):  # the first may be the beginning, the second is what was sent
            bus._postgres.send("anything")
            assert await news.wait(120.0)
        news.close()


globals().update(cases_of(contract, "buses"))
