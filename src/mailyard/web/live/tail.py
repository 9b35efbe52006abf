"""The one reader of the event stream in this process, who tells everybody else.

A wake-up comes with the commit of an event, but the event is only settled once every older
transaction has ended (`bus.live`): so a wake-up is followed by a few quick looks.
"""

import asyncio
from collections.abc import Callable, Sequence

import structlog

from mailyard.bus.live import START, LiveEvents, StoredEvent

_BATCHES_PER_READ = 500
_QUICK_S = 0.01
_CALM_S = 1.0  # also what a lost wake-up costs
_AGAIN_S = 0.5  # after the database was away

logger = structlog.get_logger(__name__)

Hear = Callable[[Sequence[StoredEvent]], None]


class Tail:
    """Reads on from the end of the stream at `start`, and hands each run of events to `hearers`."""

    def __init__(self, *, live: LiveEvents, hearers: Sequence[Hear]) -> None:
        self._live = live
        self._hearers = hearers
        self._task: asyncio.Task[None] | None = None
        self._started = asyncio.Event()
        self.position = START  # everything up to here has been handed on

    async def start(self) -> None:
        """Begin. Returns when the end of the stream is known, however long the database is away."""
        if self._task is None:
            self._task = asyncio.create_task(self._follow(), name="live-tail")
        await self._started.wait()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _follow(self) -> None:
        subscription = self._live.subscribe()
        pause_s = _QUICK_S
        try:
            while True:
                try:
                    if not self._started.is_set():
                        self.position = await self._live.newest()
                        self._started.set()
                    events = await self._live.read_after(self.position, _BATCHES_PER_READ)
                except Exception as error:
                    logger.warning("live.tail_interrupted", error=str(error))
                    await asyncio.sleep(_AGAIN_S)
                    continue
                if events:
                    self.position = events[-1].cursor
                    for hear in self._hearers:
                        hear(events)
                    pause_s = _QUICK_S
                if await subscription.wait(pause_s):
                    pause_s = _QUICK_S
                else:
                    pause_s = min(_CALM_S, pause_s * 2)
        finally:
            subscription.close()
