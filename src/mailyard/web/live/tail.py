"""The one reader of the event stream in this process, who tells everybody else.

It follows the stream while somebody listens, and rests otherwise: what nobody hears need not be
read. Whoever begins to listen waits until the tail has found the end of the stream; what was
published before that lies behind `position`, and a listener with a cursor reads it by itself.

A wake-up comes with the commit of an event, but the event is only settled once every older
transaction has ended (`bus.live`): so a wake-up is followed by a few quick looks.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from time import monotonic

import structlog

from mailyard.bus.bus import Subscription
from mailyard.bus.live import START, LiveEvents, StoredEvent
from mailyard.core.errors import Unavailable

_BATCHES_PER_READ = 500
_EVENTS_AT_ONCE = 50
_QUICK_S = 0.01
_EAGER_S = 0.25  # for which the looks behind a wake-up stay quick: most transactions end sooner
_CALM_S = 1.0  # also what a lost wake-up costs
_AGAIN_S = 0.5  # after the database was away
_LINGER_S = 5.0  # after the last listener: those who wait for mail come one after the other
_END_KNOWN_S = 10.0  # how long a listener waits for the end of the stream

logger = structlog.get_logger(__name__)

Hear = Callable[[Sequence[StoredEvent]], None]


class Tail:
    """Reads on from the end of the stream, and hands each run of events to `hearers`."""

    def __init__(self, *, live: LiveEvents, hearers: Sequence[Hear]) -> None:
        self._live = live
        self._hearers = hearers
        self._task: asyncio.Task[None] | None = None
        self._listeners = 0
        self._alone_since_s = 0.0
        self._wanted = asyncio.Event()
        self._following = asyncio.Event()
        self._closed = False
        self.position = START  # while somebody listens: everything up to here has been handed on

    def start(self) -> None:
        """Begin to follow whenever somebody listens."""
        if self._task is None:
            self._task = asyncio.create_task(self._live_on(), name="live-tail")

    async def close(self) -> None:
        """End. Whoever waits to listen is refused."""
        self._closed = True
        self._following.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Have the stream followed for as long as this lasts, from `position` as it is within.

        Raises Unavailable when the end of the stream cannot be found.
        """
        self._listeners += 1
        self._wanted.set()
        try:
            try:
                async with asyncio.timeout(_END_KNOWN_S):
                    await self._following.wait()
            except TimeoutError:
                raise Unavailable("the stream of events cannot be read now") from None
            if self._closed:
                raise Unavailable("shutting down: ask again")
            yield
        finally:
            self._listeners -= 1
            self._alone_since_s = monotonic()

    async def _live_on(self) -> None:
        while True:
            await self._wanted.wait()
            subscription = self._live.subscribe()
            try:
                await self._find_end()
                await self._follow(subscription)
            finally:
                subscription.close()

    async def _find_end(self) -> None:
        while True:
            try:
                self.position = await self._live.newest()
            except Exception as error:
                logger.warning("live.tail_interrupted", error=str(error))
                await asyncio.sleep(_AGAIN_S)
            else:
                self._following.set()
                return

    async def _follow(self, subscription: Subscription) -> None:
        """Until nobody has listened for a while."""
        pause_s, woken_at_s = _QUICK_S, monotonic()
        while self._listeners or monotonic() - self._alone_since_s < _LINGER_S:
            try:
                events = await self._live.read_after(self.position, _BATCHES_PER_READ)
            except Exception as error:
                logger.warning("live.tail_interrupted", error=str(error))
                await asyncio.sleep(_AGAIN_S)
                continue
            for first in range(0, len(events), _EVENTS_AT_ONCE):
                some = events[first : first + _EVENTS_AT_ONCE]
                self.position = some[-1].cursor
                for hear in self._hearers:
                    hear(some)
                pause_s = _QUICK_S
                await asyncio.sleep(0)  # listeners write, so that a burst fills no buffer
            if await subscription.wait(pause_s):
                pause_s, woken_at_s = _QUICK_S, monotonic()
            elif monotonic() - woken_at_s > _EAGER_S:
                pause_s = min(_CALM_S, pause_s * 2)
        self._wanted.clear()
        self._following.clear()
