"""The HTTP server of a process: one port for several, clear refusals, a drain that ends."""

import asyncio
import socket
from typing import Any

import pytest

from mailyard.core.errors import ConfigurationError
from mailyard.web.api.body import read_body
from mailyard.web.protocol import Receive, Scope, Send
from mailyard.web.serve import HttpServer


class _App:
    """Answers at once, slowly, or with a stream that never ends by itself."""

    def __init__(self) -> None:
        self.end = asyncio.Event()
        self.begun = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": []}
        if scope["path"] == "/stream":
            await send(start)
            await send({"type": "http.response.body", "body": b"data\n", "more_body": True})
            self.begun.set()
            await self.end.wait()
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        if scope["path"] in ("/slow", "/stuck"):
            self.begun.set()
            await asyncio.sleep(0.3 if scope["path"] == "/slow" else 3600)
        await send(start)
        await send({"type": "http.response.body", "body": b"done"})

    async def end_streams(self) -> None:
        self.end.set()


async def _get(port: int, path: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
    try:
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def _started(app: Any, **options: Any) -> HttpServer:
    server = HttpServer(app, host="127.0.0.1", **{"port": 0, **options})
    await server.start()
    return server


async def _echo_size(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers how long the body was, read as the API reads it."""
    declared = int(dict(scope["headers"])[b"content-length"])
    body = b"%d" % len(await read_body(receive, declared, limit=4_000_000))
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def test_bodies_of_all_sizes_are_read_whole_one_after_the_other_on_a_connection() -> None:
    server = await _started(_echo_size)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    for size in (0, 1, 3_500, 3_000_000, 3_500, 70_000, 1):
        head = f"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {size}\r\n\r\n"
        writer.write(head.encode() + b"x" * size)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = int(answer.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        assert await reader.readexactly(length) == b"%d" % size
    writer.close()
    await server.stop()


async def test_two_servers_share_one_port() -> None:
    app = _App()
    first = await _started(app)
    second = await _started(app, port=first.port)
    assert b"done" in await _get(first.port, "/")
    await first.stop()
    assert b"done" in await _get(second.port, "/"), "the other one goes on"
    await second.stop()


async def test_a_port_that_another_program_has_is_said_clearly() -> None:
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    port = taken.getsockname()[1]
    with pytest.raises(
        ConfigurationError, match=f":{port}: another program, or another Mailyard, listens there"
    ):
        await _started(_App(), port=port)
    taken.close()


async def test_an_address_that_is_not_ours_is_said_clearly() -> None:
    server = HttpServer(_App(), host="203.0.113.1", port=0)
    with pytest.raises(ConfigurationError, match="no such address; set MAILYARD_HOST"):
        await server.start()


async def test_a_drain_finishes_requests_and_ends_streams() -> None:
    app = _App()
    server = await _started(app, drain_s=20.0, on_stop=app.end_streams)
    stream = asyncio.create_task(_get(server.port, "/stream"))
    await app.begun.wait()
    app.begun.clear()
    slow = asyncio.create_task(_get(server.port, "/slow"))
    await app.begun.wait()
    await server.stop()
    assert b"done" in await slow
    assert b"data" in await stream


async def test_a_request_that_never_ends_does_not_hold_the_drain() -> None:
    app = _App()
    server = await _started(app, drain_s=0.2)
    stuck = asyncio.create_task(_get(server.port, "/stuck"))
    await app.begun.wait()
    async with asyncio.timeout(15):
        await server.stop()
        assert b"done" not in await stuck


async def test_more_than_a_thousand_and_twenty_four_connections_are_all_answered() -> None:
    server = await _started(_App())
    idle = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(1_100)]
    assert b"done" in await _get(server.port, "/")
    for _, writer in idle:
        writer.close()
    await server.stop()


async def test_a_stopped_server_takes_no_connection() -> None:
    server = await _started(_App())
    await server.stop()
    with pytest.raises(OSError, match=r"refused|Connect"):
        await asyncio.open_connection("127.0.0.1", server.port)
