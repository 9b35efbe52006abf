"""A WebSocket that is read and written here, on a descriptor of its own (`descriptor`).

What goes out is the same frame for all who hear the same, made once (`form.FRAMES`).
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import cast

from mailyard.core.limits import SOCKET_BUFFER_BYTES, SOCKET_MESSAGE_BYTES
from mailyard.protocol.websocket import (
    CLOSE,
    NO_STATUS,
    PING,
    PONG,
    FrameReader,
    Said,
    SocketFault,
    close_frame,
    frame,
)
from mailyard.web.live.descriptor import Copy
from mailyard.web.live.socket import GOODBYE_S, Talk, code_of
from mailyard.web.live.stream import End, Stream


class Wire(asyncio.Protocol):
    """One open connection: what goes out, and what the client says."""

    def __init__(self, stream: Stream, copy: Copy) -> None:
        self._stream = stream
        self._copy = copy
        self._talk = Talk(stream)
        self._reader = FrameReader(SOCKET_MESSAGE_BYTES)
        self._transport: asyncio.Transport | None = None
        self._writable: asyncio.Future[None] | None = None
        self._gone: asyncio.Future[None] | None = None
        self._fault = 0
        self._goodbye: Said | None = None  # the client's

    @classmethod
    async def open(cls, stream: Stream, copy: Copy) -> "Wire":
        """Begin to read. Raises OSError when the client has gone."""
        wire = cls(stream, copy)
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(lambda: wire, copy.socket)
        stream.at_once = wire._offer
        return wire

    async def write(self, frames: Sequence[bytes]) -> None:
        """Returns when more may be written."""
        if self._transport is None or self._transport.is_closing():
            return
        self._transport.write(frames[0] if len(frames) == 1 else b"".join(frames))
        if self._writable is not None:
            await self._writable

    def _offer(self, frame: bytes) -> bool:
        if self._transport is None or self._transport.is_closing() or self._writable is not None:
            return False
        self._transport.write(frame)
        return True

    async def close(self) -> None:
        """Say goodbye, and why, to a client that is there and reads; then hang up."""
        transport = self._transport
        try:
            if transport is None or self._stream.end_reason is End.UNREAD:
                self._copy.cut()
            elif not transport.is_closing():
                transport.write(self._last_frame())
                transport.write_eof()
                if self._goodbye is None:
                    self._gone = asyncio.get_running_loop().create_future()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(GOODBYE_S):
                            await self._gone
                self._copy.hang_up()
        finally:
            if transport is not None:
                transport.abort()

    def _last_frame(self) -> bytes:
        if self._goodbye is not None and not self._fault:
            code = self._goodbye.close_code  # RFC 6455 section 5.5.1: the same comes back
            return frame(CLOSE, b"") if code == NO_STATUS else close_frame(code)
        return close_frame(self._fault or code_of(self._stream.end_reason))

    # --- of asyncio --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=SOCKET_BUFFER_BYTES)

    def data_received(self, data: bytes) -> None:
        try:
            for said in self._reader.feed(data):
                self._hear(said)
        except SocketFault as fault:
            self._refuse(fault.code)

    def pause_writing(self) -> None:
        self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    def eof_received(self) -> bool:
        self._stream.end(End.LEFT)
        return False

    def connection_lost(self, _error: Exception | None) -> None:
        self._stream.end(End.LEFT)
        self.resume_writing()
        if self._gone is not None and not self._gone.done():
            self._gone.set_result(None)

    # --- what the client says ----------------------------------------------------------------

    def _hear(self, said: Said) -> None:
        if self._stream.ended:
            return
        if said.opcode == CLOSE:
            self._goodbye = said
            self._stream.end(End.LEFT)
        elif said.opcode >= PING:
            code = self._talk.count()
            if code:
                self._refuse(code)
            elif said.opcode == PING and self._writable is None and self._transport is not None:
                self._transport.write(frame(PONG, said.payload))
        elif code := self._talk.take(said.payload):
            self._refuse(code)

    def _refuse(self, code: int) -> None:
        if not self._stream.ended:
            self._fault = code
            self._stream.end(End.REVOKED)
