"""What buses over a server share: announcements that gather, and two tasks from open to close.

Subscribers of the same process wake at once, without the server; the other processes hear of what
has gathered meanwhile together.
"""

import asyncio

from mailyard.bus.bus import Subscription, Topics


class GatheringBus:
    """`open` it before use, on the loop that uses it. Whoever derives says how it is sent and how
    the others are heard."""

    def __init__(self, topics: Topics | None) -> None:
        self._topics = topics or Topics()
        self._pending: dict[str, None] = {}
        self._something_pending = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Start to listen. Does not wait for the server; a late connection wakes everybody."""
        self._tasks = [
            asyncio.create_task(self._listen_forever(), name="bus-listen"),
            asyncio.create_task(self._send_forever(), name="bus-send"),
        ]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    def announce(self, topic: str) -> None:
        self._topics.wake(topic)
        self.send(topic)

    def send(self, topic: str) -> None:
        """As `announce`, for the other processes."""
        self._pending[topic] = None
        self._something_pending.set()

    def subscribe(self, topic: str) -> Subscription:
        return self._topics.subscribe(topic)

    async def _send_forever(self) -> None:
        """Send what is pending, in few messages."""
        raise NotImplementedError

    async def _listen_forever(self) -> None:
        """Wake by what others send; everything once whenever listening begins anew."""
        raise NotImplementedError
