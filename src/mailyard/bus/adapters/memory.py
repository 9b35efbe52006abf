"""A bus inside one process: for tests, and for a platform of a single process."""

from mailyard.bus.bus import Subscription, Topics


class MemoryBus:
    """Wakes subscribers at once."""

    def __init__(self) -> None:
        self._topics = Topics()

    async def open(self) -> None:
        return

    async def close(self) -> None:
        return

    def announce(self, topic: str) -> None:
        self._topics.wake(topic)

    def subscribe(self, topic: str) -> Subscription:
        return self._topics.subscribe(topic)
