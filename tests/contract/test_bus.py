"""The bus: wake-ups reach every process, are gathered, and survive a broken connection."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from mailyard.bus.adapters.memory import MemoryBus
from mailyard.bus.adapters.postgres import PostgresBus
from mailyard.bus.bus import Bus
from mailyard.storage.database import Database


@pytest.fixture(params=["memory", "postgres"])
async def buses(
    request: pytest.FixtureRequest, database: Database
) -> AsyncIterator[tuple[Bus, Bus]]:
    """(who announces, who listens): two processes where the adapter can, else one."""
    if request.param == "memory":
        bus = MemoryBus()
        yield bus, bus
        return
    pair = PostgresBus(database=database), PostgresBus(database=database)
    for each in pair:
        await each.open()
    await listening(pair[1])
    yield pair
    for each in pair:
        await each.close()


async def listening(bus: Bus) -> None:
    """A bus wakes everybody as soon as it listens."""
    subscription = bus.subscribe("anything")
    assert await subscription.wait(20.0)
    subscription.close()


async def test_an_announcement_wakes_the_topics_subscribers(buses: tuple[Bus, Bus]) -> None:
    speaker, listener = buses
    first, second = listener.subscribe("queue:a"), listener.subscribe("queue:a")
    other = listener.subscribe("queue:b")
    speaker.announce("queue:a")
    assert await first.wait(20.0)
    assert await second.wait(20.0)
    assert not await other.wait(0.05)


async def test_an_announcement_before_the_wait_is_remembered(buses: tuple[Bus, Bus]) -> None:
    speaker, _ = buses
    subscription = speaker.subscribe("live")
    speaker.announce("live")
    assert await subscription.wait(0.0)
    assert not await subscription.wait(0.0)


async def test_a_closed_subscription_hears_nothing(buses: tuple[Bus, Bus]) -> None:
    speaker, _ = buses
    subscription = speaker.subscribe("live")
    subscription.close()
    subscription.close()
    speaker.announce("live")
    assert not await subscription.wait(0.02)


async def test_many_topics_travel_together(buses: tuple[Bus, Bus]) -> None:
    speaker, listener = buses
    topics = [f"wait:{number:06d}:{'x' * 40}" for number in range(1_000)]
    subscriptions = [listener.subscribe(topic) for topic in topics]
    for topic in topics:
        speaker.announce(topic)
    assert all([await subscription.wait(20.0) for subscription in subscriptions])


async def test_a_burst_is_few_notifications(database: Database, database_url: str) -> None:
    heard: list[str] = []
    arrived = asyncio.Event()

    def hear(*given: object) -> None:
        heard.append(str(given[3]))
        arrived.set()

    connection = await asyncpg.connect(database_url)
    await connection.add_listener("mailyard", hear)
    bus = PostgresBus(database=database)
    await bus.open()
    for _ in range(1_000):
        bus.announce("queue:a")
        bus.announce("queue:b")
    await listening(bus)
    await asyncio.wait_for(arrived.wait(), 20.0)
    await asyncio.sleep(0.1)
    assert len(heard) <= 2
    await bus.close()
    await connection.close()


async def test_a_lost_connection_comes_back_and_wakes_everybody(
    database: Database, database_url: str
) -> None:
    bus = PostgresBus(database=database)
    await bus.open()
    await listening(bus)
    subscription = bus.subscribe("live")
    connection = await asyncpg.connect(database_url)
    ended = await connection.fetch(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND query ILIKE 'listen%'"
    )
    assert ended
    assert await subscription.wait(20.0)
    await connection.execute("SELECT pg_notify('mailyard', 'live')")
    assert await subscription.wait(20.0)
    await connection.close()
    await bus.close()


async def test_who_does_not_wait_may_ask_whether_something_was_announced(
    buses: tuple[Bus, Bus],
) -> None:
    speaker, _ = buses
    subscription = speaker.subscribe("live")
    assert not subscription.heard()
    speaker.announce("live")
    assert subscription.heard()
    assert not subscription.heard()
