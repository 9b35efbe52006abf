"""The bus of a fleet: Redis carries the wake-ups as long as it is there, PostgreSQL when it is not.

A process listens to both always, and sends by Redis alone while it hears by Redis itself. One that
does not says so through PostgreSQL every few seconds; whoever hears that sends by both meanwhile:
so a process that has lost Redis while the others have it is not left without wake-ups.
"""

import asyncio
from collections.abc import Sequence

from mailyard.bus.adapters.postgres import PostgresBus
from mailyard.bus.adapters.redis import RedisBus
from mailyard.bus.bus import Subscription, Topics
from mailyard.core.clock import Clock
from mailyard.observe.metrics import REDIS_FALLBACKS
from mailyard.storage.database import Database
from mailyard.storage.redis.link import RedisLink

DEAF = "bus:deaf"  # what a process says that does not hear by Redis
SAID_EVERY_S = 4.0
BELIEVED_S = 10.0
_WOKEN = REDIS_FALLBACKS.labels("wake-up")


class FleetBus:
    """`open` it before use, on the loop of the link, which is its owner's to open and close."""

    def __init__(self, *, link: RedisLink, database: Database, clock: Clock) -> None:
        self._topics = Topics()
        self._redis = RedisBus(link=link, topics=self._topics, unsent=self._not_by_redis)
        self._postgres = PostgresBus(database=database, topics=self._topics)
        self._clock = clock
        self._both_until_s = 0.0
        self._task: asyncio.Task[None] | None = None
        link.watch(self._link_changed)

    async def open(self) -> None:
        """Start to listen. Waits for neither server."""
        await self._postgres.open()
        await self._redis.open()
        self._task = asyncio.create_task(self._tell_when_deaf(), name="bus-deaf")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        await self._redis.close()
        await self._postgres.close()

    def announce(self, topic: str) -> None:
        self._topics.wake(topic)
        if self._redis.listens:
            self._redis.send(topic)
            if self._clock.monotonic() >= self._both_until_s:
                return
        _WOKEN.inc()
        self._postgres.send(topic)

    def subscribe(self, topic: str) -> Subscription:
        return self._topics.subscribe(topic)

    def _not_by_redis(self, topics: Sequence[str]) -> None:
        _WOKEN.inc(len(topics))
        for topic in topics:
            self._postgres.send(topic)

    def _link_changed(self, up: bool) -> None:
        if not up and self._task is not None:
            self._postgres.send(DEAF)

    async def _tell_when_deaf(self) -> None:
        news = self._topics.subscribe(DEAF)
        try:
            while True:
                if await news.wait(SAID_EVERY_S):
                    self._both_until_s = self._clock.monotonic() + BELIEVED_S
                    await asyncio.sleep(1.0)  # what many say at once is heard once
                if not self._redis.listens:
                    self._postgres.send(DEAF)
        finally:
            news.close()
