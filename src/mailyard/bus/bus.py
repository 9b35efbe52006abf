"""The port of the bus: wake-ups between processes, and nothing else.

An announcement says "look again": it carries a topic and no data, may be merged with others of
its topic, and may get lost when a connection breaks. Whoever subscribes therefore also looks now
and then by itself; what must not be lost is stored (`bus/live.py`, the queue's tables).
"""

import asyncio
from collections.abc import Callable
from typing import Protocol


class Subscription:
    """One listener to one topic. Announcements between two waits are remembered as one."""

    __slots__ = ("_event", "_forget")

    def __init__(self, forget: Callable[["Subscription"], None]) -> None:
        self._event = asyncio.Event()
        self._forget = forget

    def wake(self) -> None:
        """Called by the bus: something was announced."""
        self._event.set()

    async def wait(self, timeout_s: float) -> bool:
        """True as soon as the topic was announced since the last wait, False after `timeout_s`."""
        if not self._event.is_set():
            try:
                async with asyncio.timeout(timeout_s):
                    await self._event.wait()
            except TimeoutError:
                return False
        self._event.clear()
        return True

    def heard(self) -> bool:
        """Whether the topic was announced since the last wait or question. Does not wait."""
        heard = self._event.is_set()
        self._event.clear()
        return heard

    def close(self) -> None:
        """Stop listening."""
        self._forget(self)


class Bus(Protocol):
    """Wakes up whoever waits for a topic, in this process and in the others."""

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    def announce(self, topic: str) -> None:
        """Wake up the topic's subscribers soon. Never blocks, never fails; call it after commit."""
        ...

    def subscribe(self, topic: str) -> Subscription:
        """Listen to `topic` from now on, until the subscription is closed."""
        ...


class Topics:
    """The subscribers of this process, by topic. The adapters share it."""

    def __init__(self) -> None:
        self._subscribers: dict[str, set[Subscription]] = {}

    def subscribe(self, topic: str) -> Subscription:
        subscription = Subscription(lambda closed: self._forget(topic, closed))
        self._subscribers.setdefault(topic, set()).add(subscription)
        return subscription

    def wake(self, topic: str) -> None:
        for subscription in self._subscribers.get(topic, ()):
            subscription.wake()

    def wake_all(self) -> None:
        for topic in self._subscribers:
            self.wake(topic)

    def _forget(self, topic: str, subscription: Subscription) -> None:
        subscribers = self._subscribers.get(topic, set())
        subscribers.discard(subscription)
        if not subscribers:
            self._subscribers.pop(topic, None)
