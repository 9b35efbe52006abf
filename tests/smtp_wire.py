"""SMTP over real sockets for tests: a listener with a handler that notes, and a raw client."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from smtp_sessions import STORED, TAKEN, take_example

from mailyard.net.guard import networks
from mailyard.protocol.smtp.envelope import Envelope, Peer
from mailyard.protocol.smtp.reply import Reply
from mailyard.protocol.smtp.session import SessionConfig
from mailyard.receiving.listener import Listener, ListenerLimits


class NotingHandler:
    """Takes everything but recipients that begin with "no", and notes what came."""

    def __init__(self) -> None:
        self.stored: list[tuple[Envelope, bytes]] = []
        self.peers: list[Peer] = []

    def accept_recipient(self, peer: Peer, reverse_path: str, address: str) -> Reply:
        self.peers.append(peer)
        return take_example(address)

    async def accept_message(self, envelope: Envelope, content: bytes) -> Reply:
        await asyncio.sleep(0)
        self.stored.append((envelope, content))
        return STORED


class HeldHandler(NotingHandler):
    """Answers messages only when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[asyncio.Future[Reply]] = []

    def accept_message(self, envelope: Envelope, content: bytes) -> asyncio.Future[Reply]:  # type: ignore[override]
        self.stored.append((envelope, content))
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.held.append(future)
        return future


class Wire:
    """A raw connection that reads whole replies."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, port: int) -> "Wire":
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=1 << 24))

    async def reply(self) -> int:
        """The code of the next reply; 0 when the connection has ended."""
        while True:
            line = await asyncio.wait_for(self.reader.readline(), 20)
            if not line:
                return 0
            assert line.endswith(b"\r\n")
            if line[3:4] != b"-":
                return int(line[:3])

    async def say(self, data: bytes, replies: int = 1) -> list[int]:
        self.writer.write(data)
        return [await self.reply() for _ in range(replies)]

    async def hello(self) -> None:
        assert await self.reply() == 220
        assert await self.say(b"EHLO client.example\r\n") == [250]

    async def rest(self) -> bytes:
        """Everything until the end of the connection."""
        try:
            return await asyncio.wait_for(self.reader.read(), 20)
        except ConnectionError:
            return b""

    def close(self) -> None:
        self.writer.close()


@asynccontextmanager
async def listening(
    handler: NotingHandler,
    limits: ListenerLimits | None = None,
    session: SessionConfig | None = None,
    tls_context: ssl.SSLContext | None = None,
    *,
    balancers: Sequence[str] = (),
    tls_on_connect: bool = False,
) -> AsyncIterator[Listener]:
    listener = Listener(
        host="127.0.0.1",
        port=0,
        handler=handler,
        hostname="mx.example",
        listener_limits=limits,
        session=session,
        tls_context=tls_context,
        balancers=networks(balancers),
        tls_on_connect=tls_on_connect,
    )
    await listener.start()
    try:
        yield listener
    finally:
        await listener.drain(0.2)


@asynccontextmanager
async def tls_in_front(port: int, context: ssl.SSLContext) -> AsyncIterator[int]:
    """A port where TLS comes first, as on 465; what is inside goes on to `port`."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
        except OSError:
            pass  # the other side sees the end of it
        writer.close()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind_reader, behind_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, behind_writer), pump(behind_reader, writer))

    server = await asyncio.start_server(forward, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def until(condition: Callable[[], object]) -> None:
    """Wait until `condition()` is true, for 20 seconds at most."""
    for _ in range(4000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not come true")


__all__ = [
    "STORED",
    "TAKEN",
    "HeldHandler",
    "NotingHandler",
    "Wire",
    "listening",
    "tls_in_front",
    "until",
]
