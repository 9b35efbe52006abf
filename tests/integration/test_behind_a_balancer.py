"""SMTP behind a load balancer: the peer is who the balancer says, and nobody else may say so."""

import asyncio
import socket
import ssl
from pathlib import Path

import pytest
import uvloop
from smtp_wire import NotingHandler, Wire, listening, until

from mailyard.net.tls import ensure_certificate, server_context
from mailyard.protocol.proxy_header import V2_SIGNATURE
from mailyard.receiving.listener import ListenerLimits

HERE = ["127.0.0.0/8"]
LINE = b"PROXY TCP4 192.0.2.7 198.51.100.1 40123 25\r\n"
HEALTH_CHECK = V2_SIGNATURE + b"\x20\x00\x00\x00"
MAIL = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n"


@pytest.fixture(scope="module")
def event_loop_policy() -> uvloop.EventLoopPolicy:
    """The loop of production."""
    return uvloop.EventLoopPolicy()


async def test_the_peer_is_who_stands_behind_the_balancer() -> None:
    handler = NotingHandler()
    async with listening(handler, balancers=HERE) as listener:
        wire = await Wire.open(listener.port)
        for byte in LINE:
            wire.writer.write(bytes([byte]))
            await wire.writer.drain()
        await wire.hello()
        assert await wire.say(MAIL, 2) == [250, 250]
        assert (handler.peers[0].address, handler.peers[0].port) == ("192.0.2.7", 40123)
        assert listener.per_address == {"192.0.2.7": 1}
        wire.close()
        await until(lambda: not listener.connections)
        assert not listener.per_address


async def test_what_comes_with_the_header_is_not_lost() -> None:
    async with listening(NotingHandler(), balancers=HERE) as listener:
        wire = await Wire.open(listener.port)
        assert await wire.say(LINE + b"NOOP\r\nQUIT\r\n", 3) == [220, 250, 221]


async def test_a_health_check_is_greeted_as_the_balancer_itself() -> None:
    async with listening(NotingHandler(), balancers=HERE) as listener:
        wire = await Wire.open(listener.port)
        assert await wire.say(HEALTH_CHECK) == [220]
        assert listener.per_address == {"127.0.0.1": 1}


async def test_a_client_that_is_no_balancer_cannot_say_who_it_is() -> None:
    async with listening(NotingHandler(), balancers=["10.0.0.0/8"]) as listener:
        wire = await Wire.open(listener.port)
        assert await wire.reply() == 220
        assert (await wire.say(LINE))[0] == 500


@pytest.mark.parametrize("said", [b"EHLO x.example\r\n", b"PROXY TCP4 nobody\r\n"])
async def test_a_balancer_that_says_nothing_of_it_is_cut_off(said: bytes) -> None:
    async with listening(NotingHandler(), balancers=HERE) as listener:
        wire = await Wire.open(listener.port)
        wire.writer.write(said)
        assert await wire.rest() == b""
        await until(lambda: not listener.connections)
        assert not listener.per_address


async def test_limits_count_those_behind_the_balancer_each_for_itself() -> None:
    limits = ListenerLimits(connections=4, connections_per_address=1)
    async with listening(NotingHandler(), limits, balancers=HERE) as listener:
        other = LINE.replace(b"192.0.2.7", b"192.0.2.8")
        wires = [await Wire.open(listener.port) for _ in range(3)]
        lines = zip(wires, (LINE, LINE, other), strict=True)
        assert [(await wire.say(line))[0] for wire, line in lines] == [220, 421, 220]
        await until(lambda: len(listener.connections) == 2)
        last = []
        for last_octet in (b"2.10", b"2.11", b"2.12"):
            wire = await Wire.open(listener.port)
            last.append((await wire.say(LINE.replace(b"2.7", last_octet)))[0])
        assert last == [220, 220, 421]


async def test_who_is_still_to_say_it_is_cut_by_a_drain() -> None:
    async with listening(NotingHandler(), balancers=HERE) as listener:
        wire = await Wire.open(listener.port)
        await until(lambda: listener.connections)
        await asyncio.wait_for(listener.drain(10.0), 5.0)
        assert await wire.rest() == b""


def greeted(port: int, header: bytes) -> bytes:
    """What a client gets that a balancer passes through: the header, then its handshake at once."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        plain.sendall(header)
        try:
            with context.wrap_socket(plain) as encrypted:
                return encrypted.recv(100)
        except OSError:
            return b""


async def test_with_tls_on_connect_the_header_comes_before_the_handshake(tmp_path: Path) -> None:
    context = server_context(*ensure_certificate(tmp_path, "mail.test"))
    async with listening(
        NotingHandler(), tls_context=context, balancers=HERE, tls_on_connect=True
    ) as listener:
        assert (await asyncio.to_thread(greeted, listener.port, LINE)).startswith(b"220 ")
        assert (await asyncio.to_thread(greeted, listener.port, HEALTH_CHECK)).startswith(b"220 ")
        assert await asyncio.to_thread(greeted, listener.port, b"") == b""
        assert await asyncio.to_thread(greeted, listener.port, b"PROXY nonsense\r\n") == b""
