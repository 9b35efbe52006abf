"""The bus over Redis's publish and subscribe, which forgets what nobody hears: as a bus may.

As with PostgreSQL a process gathers its announcements and sends them together, so that a burst of
work is a few messages. Subscribers of the same process wake at once, without the server.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

import structlog

from mailyard.bus.adapters.gathering import GatheringBus
from mailyard.bus.bus import Topics
from mailyard.storage.redis.link import RedisAway, RedisLink
from mailyard.storage.redis.script import command

GATHER_S = 0.005
_TOPICS_PER_MESSAGE = 500
_LET_GO_S = 1.0
_AGAIN_S = 0.2  # after a subscription that ended while the link stands

_LOG = structlog.get_logger(__name__)


class RedisBus(GatheringBus):
    """`open` it before use, on the loop of the link. `unsent`: told of topics that were not
    published because Redis is away."""

    def __init__(
        self,
        *,
        link: RedisLink,
        topics: Topics | None = None,
        unsent: Callable[[Sequence[str]], None] | None = None,
    ) -> None:
        super().__init__(topics)
        self._link = link
        self._unsent = unsent
        self._channel = f"{link.address.prefix}:bus"
        self.listens = False

    async def _send_forever(self) -> None:
        while True:
            await self._something_pending.wait()
            self._something_pending.clear()
            topics, self._pending = list(self._pending), {}
            messages = [
                "\n".join(topics[begin : begin + _TOPICS_PER_MESSAGE])
                for begin in range(0, len(topics), _TOPICS_PER_MESSAGE)
            ]
            try:
                await self._link.run([command("PUBLISH", self._channel, one) for one in messages])
            except RedisAway:
                # Whoever waits also looks by itself, so a lost wake-up costs time and nothing else.
                if self._unsent is not None:
                    self._unsent(topics)
            await asyncio.sleep(GATHER_S)

    async def _listen_forever(self) -> None:
        while True:
            await self._link.until(up=True)
            listening = asyncio.create_task(self._listen())
            lost = asyncio.create_task(self._link.until(up=False))
            try:
                await asyncio.wait([listening, lost], return_when=asyncio.FIRST_COMPLETED)
            finally:
                self.listens = False
                for task in (listening, lost):
                    task.cancel()
                # A driver that is slow to let go is left behind with its connection.
                await asyncio.wait([listening, lost], timeout=_LET_GO_S)
            await asyncio.sleep(_AGAIN_S)

    async def _listen(self) -> None:
        with suppress(RedisAway):
            async with self._link.listening(self._channel) as messages:
                self.listens = True
                self._topics.wake_all()  # what was announced before we listened was not heard
                async for message in messages:
                    for topic in message.split("\n"):
                        self._topics.wake(topic)
            return
        _LOG.warning("the bus lost its subscription")
