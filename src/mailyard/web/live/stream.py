"""Server-Sent Events (HTML Standard, section 9.2): one stream a listener, one encoding an event.

A stream that comes back with a cursor reads what it missed from the database while what happens
meanwhile gathers; it then goes on from there, so nothing is missed and nothing is told twice. A
listener that does not read is cut when its buffer is full, and comes back with its cursor.
"""

import asyncio
from collections.abc import Sequence
from uuid import UUID

import msgspec

from mailyard.bus.live import START, Cursor, LiveEvents, StoredEvent
from mailyard.core.limits import LIVE_BUFFER_BYTES
from mailyard.web.live.tail import Tail
from mailyard.web.protocol import Send

_BATCHES_PER_READ = 200
_HEARTBEAT = b":\n\n"
_GAP = b'event: stream.gap\ndata: {"reason":"older events are no longer kept"}\n\n'


class Stream:
    """What one listener wants and has not yet been sent. `kinds` empty: all."""

    __slots__ = ("_buffer", "_buffered_bytes", "_wake", "after", "ended", "kinds", "workspace_id")

    def __init__(self, workspace_id: UUID, kinds: frozenset[str]) -> None:
        self.workspace_id = workspace_id
        self.kinds = kinds
        self.after = START  # events up to here are somebody else's to tell
        self.ended = False
        self._buffer: list[bytes] = []
        self._buffered_bytes = 0
        self._wake: asyncio.Future[None] | None = None

    def push(self, frame: bytes) -> None:
        """Add a frame; a listener with a full buffer is cut."""
        self._buffered_bytes += len(frame)
        if self._buffered_bytes > LIVE_BUFFER_BYTES:
            self.end()
            return
        self._buffer.append(frame)
        self._rouse()

    def end(self) -> None:
        """No more; what is buffered is dropped, the listener comes back with its cursor."""
        self.ended = True
        self._buffer = []
        self._rouse()

    async def frames(self) -> bytes:
        """What has gathered, at least one frame; empty at the end."""
        while not self._buffer and not self.ended:
            self._wake = asyncio.get_running_loop().create_future()
            await self._wake
        gathered = b"".join(self._buffer)
        self._buffer = []
        self._buffered_bytes = 0
        return gathered

    def _rouse(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)


class Streams:
    """All streams of this process, by workspace."""

    def __init__(self, *, live: LiveEvents) -> None:
        self._live = live
        self._by_workspace: dict[UUID, set[Stream]] = {}

    def hear(self, events: Sequence[StoredEvent]) -> None:
        """What the tail read: encode once what anybody wants, and hand it out."""
        for event in events:
            listeners = self._by_workspace.get(event.workspace_id)
            if not listeners:
                continue
            frame = encode(event)
            for stream in listeners:
                if event.cursor > stream.after and (not stream.kinds or event.kind in stream.kinds):
                    stream.push(frame)

    def beat(self) -> None:
        """A comment to everybody, so that nothing on the way thinks the connection dead."""
        for streams in self._by_workspace.values():
            for stream in streams:
                stream.push(_HEARTBEAT)

    def end_all(self) -> None:
        for streams in self._by_workspace.values():
            for stream in streams:
                stream.end()

    async def serve(self, stream: Stream, after: Cursor | None, tail: Tail, send: Send) -> None:
        """Tell `stream` everything behind `after` (None: from now on) until it ends."""
        async with tail.listening():
            listeners = self._by_workspace.setdefault(stream.workspace_id, set())
            joined_at = tail.position
            stream.after = joined_at if after is None else max(after, joined_at)
            listeners.add(stream)  # from this instant the tail's events gather
            try:
                await _send(send, b"retry: 1000\nid: %b\n\n" % _id(after or joined_at))
                if after is not None and after < joined_at:
                    await self._catch_up(stream, after, joined_at, send)
                while not stream.ended:
                    gathered = await stream.frames()
                    if gathered:
                        await _send(send, gathered)
            finally:
                listeners.discard(stream)
                if not listeners and self._by_workspace.get(stream.workspace_id) is listeners:
                    del self._by_workspace[stream.workspace_id]

    async def _catch_up(self, stream: Stream, after: Cursor, until: Cursor, send: Send) -> None:
        """Send what is stored in (after, until]; the tail tells the rest.

        START asks for everything that is kept, and so misses nothing.
        """
        if after != START and after < await self._live.oldest():
            await _send(send, _GAP)
        while not stream.ended:
            events = await self._live.read_after(after, _BATCHES_PER_READ, stream.workspace_id)
            wanted = [
                encode(event)
                for event in events
                if event.cursor <= until and (not stream.kinds or event.kind in stream.kinds)
            ]
            if wanted:
                await _send(send, b"".join(wanted))
            if not events or events[-1].cursor >= until:
                return
            after = events[-1].cursor


def encode(event: StoredEvent) -> bytes:
    """The event as a frame. JSON has no line ends, so one data line is enough."""
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (
        _id(event.cursor),
        event.kind.encode(),
        msgspec.json.encode(event.item),
    )


def _id(cursor: Cursor) -> bytes:
    return cursor.encode().encode()


async def _send(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})
