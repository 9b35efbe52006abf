"""The two forms of one event: Server-Sent Events and WebSocket messages.

    id: 81-7-1                                  {"id":"81-7-1",
    event: message.received                      "type":"message.received",
    data: {"message_id":"msg_…", …}              "data":{"message_id":"msg_…", …}}

An event is encoded once in each form that somebody wants, whoever else wants it.
"""

from typing import Protocol

import msgspec

from mailyard.bus.live import Cursor, StoredEvent
from mailyard.protocol.websocket import TEXT, frame

GAP = "stream.gap"
OPEN = "stream.open"
HEARTBEAT = "stream.heartbeat"
_LOST = {"reason": "older events are no longer kept"}


class Form(Protocol):
    """How events look on the wire."""

    heartbeat: bytes
    gap: bytes

    def opening(self, cursor: Cursor) -> bytes:
        """What is sent first: the place from which to come back, should nothing happen."""
        ...

    def encode(self, event: StoredEvent) -> bytes: ...


class EventStream:
    """HTML Standard, section 9.2."""

    heartbeat = b":\n\n"
    gap = b"event: stream.gap\ndata: %b\n\n" % msgspec.json.encode(_LOST)

    def opening(self, cursor: Cursor) -> bytes:
        return b"retry: 1000\nid: %b\n\n" % cursor.encode().encode()

    def encode(self, event: StoredEvent) -> bytes:
        # JSON has no line ends, so one data line is enough.
        return b"id: %b\nevent: %b\ndata: %b\n\n" % (
            event.cursor.encode().encode(),
            event.kind.encode(),
            msgspec.json.encode(event.item),
        )


class Messages:
    """One JSON object a message."""

    heartbeat = b'{"type":"%b"}' % HEARTBEAT.encode()
    gap = msgspec.json.encode({"type": GAP, "data": _LOST})

    def opening(self, cursor: Cursor) -> bytes:
        return msgspec.json.encode({"id": cursor.encode(), "type": OPEN})

    def encode(self, event: StoredEvent) -> bytes:
        return msgspec.json.encode(
            {"id": event.cursor.encode(), "type": event.kind, "data": event.item}
        )


class Frames:
    """The same objects, each as the frame of a WebSocket that carries it."""

    heartbeat = frame(TEXT, Messages.heartbeat)
    gap = frame(TEXT, Messages.gap)

    def opening(self, cursor: Cursor) -> bytes:
        return frame(TEXT, MESSAGES.opening(cursor))

    def encode(self, event: StoredEvent) -> bytes:
        return frame(TEXT, MESSAGES.encode(event))


EVENT_STREAM = EventStream()
MESSAGES = Messages()
FRAMES = Frames()
