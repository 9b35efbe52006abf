"""A link between two places of loopback as between two towns: what goes in comes out later.

TCP alone, in a thread of its own. It can fall silent (nothing passes and nobody is told, as when a
cable is cut), and be cut (both ends are told).
"""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from running_platform import free_ports

_BYTES = 256 * 1024


class FarLink:
    """Listens on `port` and leads to `target` (host, port); `delay_s` each way."""

    def __init__(self, target: tuple[str, int], delay_s: float = 0.0) -> None:
        (self.port,) = free_ports(1)
        self.target = target
        self.delay_s = delay_s
        self.out_ports: set[int] = set()  # from which the target is reached
        self._passes = threading.Event()
        self._passes.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def start(self) -> "FarLink":
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        return self

    def fall_silent(self) -> None:
        """Nothing passes, either way, and nothing is closed."""
        self._passes.clear()

    def go_on(self) -> None:
        """What waited passes."""
        self._passes.set()

    def cut(self) -> None:
        """Close every connection that passes here; new ones may be made."""
        asyncio.run_coroutine_threadsafe(self._cut(), self._loop).result(10)

    def end(self) -> None:
        self._passes.set()
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def _cut(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _end(self) -> None:
        self._server.close()
        await self._cut()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(*self.target)
        except OSError:
            writer.transport.abort()
            return
        self.out_ports.add(far_writer.get_extra_info("sockname")[1])
        ends = {writer, far_writer}
        self._writers |= ends
        try:
            await asyncio.gather(self._pass(reader, far_writer), self._pass(far_reader, writer))
        finally:
            self._writers -= ends
            for end in ends:
                end.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One direction; as many bytes may be under way as come in."""
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        writing = asyncio.create_task(self._write(under_way, writer))
        with suppress(OSError):
            while data := await reader.read(_BYTES):
                under_way.put_nowait((self._loop.time() + self.delay_s, data))
        under_way.put_nowait((self._loop.time() + self.delay_s, b""))
        with suppress(OSError):
            await writing

    async def _write(
        self, under_way: "asyncio.Queue[tuple[float, bytes]]", writer: asyncio.StreamWriter
    ) -> None:
        while True:
            due, data = await under_way.get()
            await asyncio.sleep(max(0.0, due - self._loop.time()))
            while not self._passes.is_set():
                await asyncio.sleep(0.01)
            if not data:
                if writer.can_write_eof():
                    writer.write_eof()
                return
            writer.write(data)
            await writer.drain()


@contextmanager
def far_link(target: tuple[str, int], delay_s: float = 0.0) -> Iterator[FarLink]:
    """A link that is there, and gone afterwards."""
    link = FarLink(target, delay_s).start()
    try:
        yield link
    finally:
        link.end()
