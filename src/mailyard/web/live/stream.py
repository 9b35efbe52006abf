"""Streams of events to listeners, whatever carries them: nothing is missed, nothing told twice.

A stream that comes back with a cursor reads what it missed from the database while what happens
meanwhile gathers; it then goes on from there. The same happens when more comes at once than its
buffer holds. A listener that does not read is cut as soon as its buffer is full, and comes back
with its cursor.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from enum import Enum
from time import monotonic
from uuid import UUID

from mailyard.bus.filter import EventFilter
from mailyard.bus.live import START, Cursor, LiveEvents, StoredEvent
from mailyard.core.limits import LIVE_BUFFER_BYTES, LIVE_WRITE_S
from mailyard.web.live.form import Form
from mailyard.web.live.tail import Tail

_BATCHES_PER_READ = 20  # a batch can hold a thousand events
_READS_AT_ONCE = 8  # by all who come back: after a restart that is everybody
TURNS = 30  # of heartbeats
_PATIENCE_S = 5.0  # with a listener that takes nothing while its buffer is full
_LAST_WORDS_S = 1.0  # for a listener in the middle of reading when everything ends


class End(Enum):
    """Why a stream ended."""

    LEFT = "the listener hung up"
    SHUTDOWN = "this process stops"
    MADE_ROOM = "somebody who has less got the place"
    REVOKED = "the key or the session is good no more"
    UNREAD = "the listener does not read"


Write = Callable[[Sequence[bytes]], Awaitable[None]]
Offer = Callable[[bytes], bool]  # False: not now


class Stream:
    """What one listener wants and has not yet been sent. Made in the task that serves it."""

    __slots__ = (
        "_buffer",
        "_buffered_bytes",
        "_last",
        "_task",
        "_wake",
        "_writing",
        "_writing_since_s",
        "after",
        "at_once",
        "behind",
        "end_reason",
        "filter",
        "form",
        "told",
        "turn",
        "workspace_id",
    )

    def __init__(self, workspace_id: UUID, wanted: EventFilter, form: Form) -> None:
        self.workspace_id = workspace_id
        self.filter = wanted
        self.form = form
        self.after = START  # events up to here are somebody else's to tell
        self.told = START  # up to here it has been told
        self.behind = False  # what came on is to be read from the store
        self._last = START  # of the newest event in the buffer, or on its way
        self._writing_since_s = 0.0
        self.end_reason: End | None = None
        self._buffer: list[bytes] = []
        self._buffered_bytes = 0
        self._wake: asyncio.Future[None] | None = None
        self._writing = False
        self.turn = 0
        self.at_once: Offer | None = None  # takes a frame without anybody having to wake up
        self._task = asyncio.current_task()

    @property
    def ended(self) -> bool:
        return self.end_reason is not None

    def push(self, frame: bytes, cursor: Cursor | None = None) -> None:
        """Add a frame, of the event at `cursor`. With a full buffer a listener that does not read
        is cut; one that does is to read what came on from the store."""
        if self.ended or self.behind:
            return
        if self.at_once is not None and self._waits() and self.at_once(frame):
            self.told = self._last = cursor or self._last
            return
        if self._buffered_bytes + len(frame) > LIVE_BUFFER_BYTES:
            if self._writing and monotonic() - self._writing_since_s > _PATIENCE_S:
                self.cut()
                return
            self.behind = True
            self._buffered_bytes -= sum(map(len, self._buffer))
            self._buffer = []
        else:
            self._buffered_bytes += len(frame)
            self._buffer.append(frame)
            self._last = cursor or self._last
        self._rouse()

    def catching_up(self, until: Cursor) -> Cursor:
        """From now on what lies behind `until` gathers; after which event the rest begins."""
        self.behind = False
        self.after = self._last = until
        return self.told

    def end(self, reason: End) -> None:
        """No more; what is buffered is dropped, the listener comes back with its cursor."""
        if self.ended:
            return
        self._stop(reason)
        if self._writing:
            asyncio.get_running_loop().call_later(_LAST_WORDS_S, self._cancel_writing)

    def cut(self) -> None:
        """The same, without waiting for a listener that does not read."""
        self._stop(End.UNREAD)
        self._cancel_writing()

    async def gathered(self) -> list[bytes]:
        """The frames that have gathered, at least one; none at the end."""
        while not self._buffer and not self.ended and not self.behind:
            self._wake = asyncio.get_running_loop().create_future()
            await self._wake
        self._wake = None
        gathered, self._buffer = self._buffer, []
        return gathered

    async def pass_on(self, write: Write) -> None:
        """Wait for frames and write them. Until they are written they count as buffered."""
        gathered = await self.gathered()
        if gathered:
            last = self._last
            await self.write(write, gathered)
            self._buffered_bytes -= sum(map(len, gathered))
            self.told = last

    async def write(self, write: Write, frames: Sequence[bytes]) -> None:
        """Hand `frames` on. Returns at once when the stream is cut meanwhile, and cuts it when
        the listener takes nothing for LIVE_WRITE_S."""
        self._writing, self._writing_since_s = True, monotonic()
        try:
            async with asyncio.timeout(LIVE_WRITE_S):
                await write(frames)
        except TimeoutError:
            self._stop(End.UNREAD)
        except asyncio.CancelledError:
            if not self.ended or self._task is None:
                raise
            self._task.uncancel()  # it was us: the listener does not read
            self.end_reason = End.UNREAD
        finally:
            self._writing = False

    def _waits(self) -> bool:
        """Whether all that came before is written and whoever writes waits for more."""
        return self._wake is not None and not self._wake.done()

    def _stop(self, reason: End) -> None:
        self.end_reason = self.end_reason or reason
        self._buffer = []
        self._rouse()

    def _cancel_writing(self) -> None:
        if self._writing and self._task is not None:
            self._task.cancel()

    def _rouse(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)


class Streams:
    """All streams of this process, by workspace."""

    def __init__(self, *, live: LiveEvents) -> None:
        self._live = live
        self._joined = 0
        self._reading = asyncio.Semaphore(_READS_AT_ONCE)
        self._by_workspace: dict[UUID, set[Stream]] = {}

    def hear(self, events: Sequence[StoredEvent]) -> None:
        """What the tail read: encode once in each form that anybody wants, and hand it out."""
        for event in events:
            listeners = self._by_workspace.get(event.workspace_id)
            if not listeners:
                continue
            encoded: dict[Form, bytes] = {}
            wanted: dict[EventFilter, bool] = {}
            for stream in listeners:
                if event.cursor <= stream.after:
                    continue
                wants = wanted.get(stream.filter)
                if wants is None:
                    wants = wanted[stream.filter] = stream.filter.wants(event.kind, event.item)
                if not wants:
                    continue
                frame = encoded.get(stream.form)
                if frame is None:
                    frame = encoded[stream.form] = stream.form.encode(event)
                stream.push(frame, event.cursor)

    def beat(self, turn: int) -> None:
        """A word to those whose turn it is (0 to TURNS - 1), so that nothing on the way thinks the
        connection dead: not to all at once, which would hold up everything else."""
        for streams in self._by_workspace.values():
            for stream in streams:
                if stream.turn == turn:
                    stream.push(stream.form.heartbeat)

    def end_all(self) -> None:
        """This process stops."""
        for streams in self._by_workspace.values():
            for stream in streams:
                stream.end(End.SHUTDOWN)

    async def serve(self, stream: Stream, after: Cursor | None, tail: Tail, write: Write) -> None:
        """Tell `stream` everything behind `after` (None: from now on) until it ends."""
        async with tail.listening():
            listeners = self._by_workspace.setdefault(stream.workspace_id, set())
            joined_at = tail.position
            stream.told = after or joined_at
            stream.catching_up(max(stream.told, joined_at))
            stream.turn = self._joined = (self._joined + 1) % TURNS
            listeners.add(stream)  # from this instant the tail's events gather
            try:
                await stream.write(write, [stream.form.opening(stream.told)])
                if after is not None and after < joined_at:
                    await self._catch_up(stream, after, joined_at, write)
                while not stream.ended:
                    if stream.behind:
                        until = tail.position  # all up to here has been handed to the stream
                        await self._catch_up(stream, stream.catching_up(until), until, write)
                    else:
                        await stream.pass_on(write)
            finally:
                listeners.discard(stream)
                if not listeners and self._by_workspace.get(stream.workspace_id) is listeners:
                    del self._by_workspace[stream.workspace_id]

    async def _catch_up(self, stream: Stream, after: Cursor, until: Cursor, write: Write) -> None:
        """Send what is stored in (after, until]; the tail tells the rest.

        START asks for everything that is kept, and so misses nothing.
        """
        if after != START and after < await self._live.oldest():
            await stream.write(write, [stream.form.gap])
        while not stream.ended:
            async with self._reading:
                events = await self._live.read_after(after, _BATCHES_PER_READ, stream.workspace_id)
            wanted = [
                stream.form.encode(event)
                for event in events
                if event.cursor <= until and stream.filter.wants(event.kind, event.item)
            ]
            if wanted:
                await stream.write(write, wanted)
            if not events or events[-1].cursor >= until:
                stream.told = until
                return
            after = events[-1].cursor
