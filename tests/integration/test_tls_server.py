"""Connections that begin with TLS: nobody's first record is lost, and who stalls is bounded."""

import asyncio
import socket
import ssl
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, cast

import pytest
import uvloop

from mailyard.net.tls import ensure_certificate, server_context
from mailyard.receiving.tls_server import TlsServer

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


class Greeter(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).write(b"220 hello\r\n")


def greeted(port: int) -> bytes:
    """As a client does it: the first record right behind the connection."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain) as encrypted,
    ):
        return encrypted.recv(100)


def serve(
    folder: Path,
    has_room: Callable[[int, int, str], bool],
    client: Callable[[int], Coroutine[Any, Any, None]],
) -> Coroutine[Any, Any, None]:
    context = server_context(*ensure_certificate(folder, "mail.test"))

    async def run() -> None:
        server = TlsServer(
            "127.0.0.1",
            0,
            context=context,
            protocol=lambda _: Greeter(),
            has_room=has_room,
            is_balancer=lambda _: False,
        )
        try:
            await client(server.sockets[0].getsockname()[1])
        finally:
            server.close()

    return run()


@pytest.mark.parametrize("loop", LOOPS)
def test_every_client_is_greeted(loop: str, tmp_path: Path) -> None:
    async def clients(port: int) -> None:
        for _ in range(10):
            answers = await asyncio.gather(*(asyncio.to_thread(greeted, port) for _ in range(4)))
            assert set(answers) == {b"220 hello\r\n"}

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(serve(tmp_path, lambda *_: True, clients))


def test_who_does_not_shake_hands_keeps_a_place_and_no_more_than_are_allowed(
    tmp_path: Path,
) -> None:
    async def clients(port: int) -> None:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        reader, _ = await asyncio.open_connection("127.0.0.1", port)
        assert await reader.read() == b"", "the third is not let in"
        for _, writer in silent:
            writer.close()
            await writer.wait_closed()
        while True:  # their places are free as soon as their end has been seen
            try:
                assert await asyncio.to_thread(greeted, port) == b"220 hello\r\n"
                return
            except OSError:
                await asyncio.sleep(0.01)

    def has_room(handshakes: int, of_address: int, address: str) -> bool:
        assert (handshakes, address) == (of_address, "127.0.0.1")
        return handshakes < 2

    asyncio.run(serve(tmp_path, has_room, clients))


def test_who_connects_and_goes_away_costs_nothing(tmp_path: Path) -> None:
    async def clients(port: int) -> None:
        for _ in range(20):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"EHLO this.is.not.tls\r\n")
            writer.close()
        assert await asyncio.to_thread(greeted, port) == b"220 hello\r\n"

    asyncio.run(serve(tmp_path, lambda *_: True, clients))
