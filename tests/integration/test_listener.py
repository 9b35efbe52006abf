"""The listener over real sockets: flow, ceilings, deadlines, drain, TLS, foreign clients."""

import asyncio
import contextlib
import shutil
import smtplib
import socket
import ssl
from pathlib import Path

import pytest
import uvloop
from smtp_wire import STORED, HeldHandler, NotingHandler, Wire, listening, until

from mailyard.core.errors import Unavailable
from mailyard.net.tls import ensure_certificate, server_context
from mailyard.protocol.smtp.envelope import Envelope, Peer
from mailyard.protocol.smtp.reply import Reply
from mailyard.receiving.listener import Listener, ListenerLimits

ENVELOPE = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n"
MESSAGE = ENVELOPE + b"DATA\r\n"


@pytest.fixture(scope="module")
def event_loop_policy() -> uvloop.EventLoopPolicy:
    """The loop of production."""
    return uvloop.EventLoopPolicy()


async def test_a_pipelined_message_is_stored_and_then_answered() -> None:
    handler = NotingHandler()
    async with listening(handler) as listener:
        wire = await Wire.open(listener.port)
        await wire.hello()
        assert await wire.say(MESSAGE, 3) == [250, 250, 354]
        assert await wire.say(b"hello\r\n.\r\nQUIT\r\n", 3) == [250, 221, 0]
        assert [content for _, content in handler.stored] == [b"hello\r\n"]
        assert handler.peers[0].address == "127.0.0.1"


async def test_no_reply_comes_before_the_handler_has_answered() -> None:
    handler = HeldHandler()
    async with listening(handler) as listener:
        wire = await Wire.open(listener.port)
        await wire.hello()
        await wire.say(MESSAGE, 3)
        wire.writer.write(b"x\r\n.\r\n")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(wire.reader.readline(), 0.1)
        handler.held[0].set_result(STORED)
        assert await wire.reply() == 250


class FailingHandler(NotingHandler):
    def __init__(self, error: Exception, *, late: bool) -> None:
        super().__init__()
        self.error = error
        self.late = late

    def accept_recipient(self, peer: Peer, reverse_path: str, address: str) -> Reply:
        if address.startswith("boom"):
            raise self.error
        return super().accept_recipient(peer, reverse_path, address)

    async def accept_message(self, envelope: Envelope, content: bytes) -> Reply:
        if self.late:
            await asyncio.sleep(0.01)
        raise self.error


@pytest.mark.parametrize("error", [Unavailable("no database"), ValueError("bug")])
@pytest.mark.parametrize("late", [True, False])
async def test_whatever_fails_in_the_handler_is_451_and_the_session_goes_on(
    error: Exception, late: bool
) -> None:
    async with listening(FailingHandler(error, late=late)) as listener:
        wire = await Wire.open(listener.port)
        await wire.hello()
        assert await wire.say(b"MAIL FROM:<>\r\nRCPT TO:<boom@d.example>\r\n", 2) == [250, 451]
        assert await wire.say(b"RCPT TO:<c@d.example>\r\nDATA\r\n", 2) == [250, 354]
        assert await wire.say(b"x\r\n.\r\nNOOP\r\n", 2) == [451, 250]


async def test_past_the_ceiling_of_waiting_messages_the_answer_is_451_at_once() -> None:
    handler = HeldHandler()
    async with listening(handler, ListenerLimits(waiting_messages=1)) as listener:
        first, second = await Wire.open(listener.port), await Wire.open(listener.port)
        for wire in (first, second):
            await wire.hello()
            await wire.say(MESSAGE, 3)
        first.writer.write(b"one\r\n.\r\n")
        await until(lambda: handler.held)
        assert await second.say(b"two\r\n.\r\n") == [451]
        handler.held[0].set_result(STORED)
        assert await first.reply() == 250
        assert listener.waiting_messages == listener.waiting_bytes == 0


async def test_connections_are_limited_by_address() -> None:
    async with listening(NotingHandler(), ListenerLimits(connections_per_address=2)) as listener:
        wires = [await Wire.open(listener.port) for _ in range(3)]
        assert [await wire.reply() for wire in wires] == [220, 220, 421]
        assert await wires[2].reply() == 0
        wires[0].close()
        await until(lambda: len(listener.connections) < 2)
        assert await (await Wire.open(listener.port)).reply() == 220


async def test_connections_are_limited_in_all() -> None:
    async with listening(NotingHandler(), ListenerLimits(connections=1)) as listener:
        wires = [await Wire.open(listener.port) for _ in range(2)]
        assert [await wire.reply() for wire in wires] == [220, 421]


@pytest.mark.parametrize(
    ("limits", "script"),
    [
        (ListenerLimits(command_timeout_s=0.2), b""),
        (ListenerLimits(data_timeout_s=0.2), MESSAGE + b"never ending"),
        (ListenerLimits(data_timeout_s=0.2), ENVELOPE + b"BDAT 100\r\nnever ending"),
        (ListenerLimits(session_timeout_s=0.2), b""),
    ],
)
async def test_silence_past_a_deadline_ends_the_session(
    limits: ListenerLimits, script: bytes
) -> None:
    async with listening(NotingHandler(), limits) as listener:
        wire = await Wire.open(listener.port)
        await wire.hello()
        wire.writer.write(script)
        assert b"421 4.4.2 Timeout" in await wire.rest()


@pytest.mark.parametrize("begin", [b"", MESSAGE], ids=["command", "content"])
async def test_a_slow_loris_cannot_hold_a_place_by_dripping(begin: bytes) -> None:
    limits = ListenerLimits(command_timeout_s=0.3, data_timeout_s=5, message_timeout_s=0.3)
    async with listening(NotingHandler(), limits) as listener:
        wire = await Wire.open(listener.port)
        await wire.hello()
        wire.writer.write(begin)
        rest = asyncio.create_task(wire.rest())
        while not rest.done():
            with contextlib.suppress(ConnectionError):
                wire.writer.write(b"x")
                await wire.writer.drain()
            await asyncio.sleep(0.02)
        assert b"421" in rest.result() or rest.result() == b""
        assert not listener.connections


async def test_waiting_for_our_own_answer_is_never_the_peers_timeout() -> None:
    handler = HeldHandler()
    limits = ListenerLimits(command_timeout_s=0.1, data_timeout_s=0.1, message_timeout_s=0.1)
    async with listening(handler, limits) as listener:
        wire = await Wire.open(listener.port)
        await wire.hello()
        await wire.say(MESSAGE, 3)
        wire.writer.write(b"x\r\n.\r\n")
        await asyncio.sleep(1.5)
        handler.held[0].set_result(STORED)
        assert await wire.reply() == 250


async def test_a_peer_that_reads_nothing_makes_us_stop_reading() -> None:
    async with listening(NotingHandler()) as listener:
        wire = await Wire.open(listener.port)
        await wire.hello()
        wire.writer.transport.pause_reading()
        help_command = b"HELP\r\n" * 20_000
        written = 0
        with contextlib.suppress(TimeoutError):
            while written < 200 * len(help_command):
                wire.writer.write(help_command)
                await asyncio.wait_for(wire.writer.drain(), 0.3)
                written += len(help_command)
        assert written < 200 * len(help_command)
        wire.writer.transport.abort()


async def test_a_drain_finishes_what_is_in_data_and_sends_the_idle_away() -> None:
    handler = HeldHandler()
    async with listening(handler) as listener:
        idle, busy = await Wire.open(listener.port), await Wire.open(listener.port)
        await idle.hello()
        await busy.hello()
        await busy.say(MESSAGE, 3)
        drain = asyncio.create_task(listener.drain(10))
        assert [await idle.reply(), await idle.reply()] == [421, 0]
        with pytest.raises(OSError):
            await Wire.open(listener.port or 1)
        busy.writer.write(b"x\r\n.\r\n")
        await until(lambda: handler.held)
        assert not drain.done()
        handler.held[0].set_result(STORED)
        assert [await busy.reply(), await busy.reply(), await busy.reply()] == [250, 421, 0]
        await asyncio.wait_for(drain, 5)


async def test_a_drain_ends_in_time_whatever_peers_do() -> None:
    async with listening(NotingHandler()) as listener:
        wire = await Wire.open(listener.port)
        await wire.hello()
        await wire.say(MESSAGE, 3)
        await asyncio.wait_for(listener.drain(0.1), 5)
        assert await wire.rest() == b""


async def test_two_listeners_share_one_port() -> None:
    handlers = NotingHandler(), NotingHandler()
    async with listening(handlers[0]) as first:
        second = Listener(
            host="127.0.0.1", port=first.port, handler=handlers[1], hostname="mx.example"
        )
        await second.start()
        wires = [await Wire.open(first.port) for _ in range(40)]
        for wire in wires:
            assert await wire.reply() == 220
        assert first.connections
        assert second.connections
        await second.drain(0.1)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    return server_context(*ensure_certificate(tmp_path_factory.mktemp("tls"), "mx.example"))


async def test_starttls_with_the_self_made_certificate(tls: ssl.SSLContext) -> None:
    def send(port: int) -> tuple[dict[str, str], dict[str, str]]:
        with smtplib.SMTP("127.0.0.1", port, timeout=10) as client:
            client.ehlo("client.example")
            before = dict(client.esmtp_features)
            client.starttls(context=unverified())
            client.ehlo("client.example")
            client.sendmail("a@b.example", ["c@d.example"], b"Subject: x\r\n\r\nsecret\r\n")
            return before, client.esmtp_features

    handler = NotingHandler()
    async with listening(handler, tls_context=tls) as listener:
        before, after = await asyncio.to_thread(send, listener.port)
        assert "starttls" in before
        assert "starttls" not in after
        assert handler.peers[0].tls
        assert handler.stored[0][1].endswith(b"secret\r\n")


def unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def inject_behind_starttls(port: int) -> bytes:
    """The reply to MAIL inside TLS, after a whole message was sent in the clear behind STARTTLS."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        plain.recv(1000)
        plain.sendall(b"EHLO client.example\r\n")
        plain.recv(1000)
        plain.sendall(b"STARTTLS\r\n" + MESSAGE + b"injected\r\n.\r\n")
        assert plain.recv(1000) == b"220 2.0.0 Ready to start TLS\r\n"
        with unverified().wrap_socket(plain) as secure:
            secure.sendall(b"MAIL FROM:<a@b.example>\r\n")
            return secure.recv(1000)


async def test_plaintext_behind_starttls_is_thrown_away(tls: ssl.SSLContext) -> None:
    handler = NotingHandler()
    async with listening(handler, tls_context=tls) as listener:
        reply = await asyncio.to_thread(inject_behind_starttls, listener.port)
        assert reply.startswith(b"503 ")
        assert not handler.stored
        assert not handler.peers


async def test_eof_while_a_message_is_being_stored_still_gets_its_answer(
    tls: ssl.SSLContext,
) -> None:
    handler = HeldHandler()
    async with listening(handler, tls_context=tls) as listener:
        wire = await Wire.open(listener.port)
        await wire.hello()
        await wire.say(MESSAGE, 3)
        wire.writer.write(b"x\r\n.\r\n")
        wire.writer.write_eof()
        await until(lambda: handler.held)
        await asyncio.sleep(0.02)
        handler.held[0].set_result(STORED)
        assert [await wire.reply(), await wire.reply()] == [250, 421]


async def test_garbage_instead_of_a_handshake_ends_the_connection(tls: ssl.SSLContext) -> None:
    async with listening(NotingHandler(), tls_context=tls) as listener:
        wire = await Wire.open(listener.port)
        await wire.hello()
        assert await wire.say(b"STARTTLS\r\n") == [220]
        wire.writer.write(b"EHLO nonsense\r\n" * 10)
        assert b"250" not in await wire.rest()
        await until(lambda: not listener.connections and not listener.per_address)


async def run(*command: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, output.decode()


SMTP_SOURCE = shutil.which("smtp-source") or "/usr/sbin/smtp-source"


@pytest.mark.parametrize("options", [["-d"], [], ["-N"], ["-r", "5"]], ids=str)
async def test_smtp_source_is_served(options: list[str]) -> None:
    handler = NotingHandler()
    async with listening(handler) as listener:
        source = [SMTP_SOURCE, "-s", "4", "-m", "40", "-l", "4096", *options]
        addresses = ["-f", "a@b.example", "-t", "c@d.example"]
        code, output = await run(*source, *addresses, f"127.0.0.1:{listener.port}")
        assert (code, output) == (0, "")
        assert len(handler.stored) == 40
        if "-r" in options:
            assert all(len(envelope.recipients) == 5 for envelope, _ in handler.stored)


@pytest.mark.parametrize(
    "options", [[], ["--pipeline"], ["-tls"], ["--tls", "--pipeline"]], ids=str
)
async def test_swaks_is_served(options: list[str], tls: ssl.SSLContext) -> None:
    handler = NotingHandler()
    async with listening(handler, tls_context=tls) as listener:
        where = ["--server", f"127.0.0.1:{listener.port}", "--from", "a@b.example"]
        code, output = await run("swaks", *where, "--to", "c@d.example,e@d.example", *options)
        assert code == 0, output
        [(envelope, content)] = handler.stored
        assert envelope.recipients == ("c@d.example", "e@d.example")
        assert b"This is a test mailing" in content


async def test_the_self_made_certificate_is_kept_private_and_reused(tmp_path: Path) -> None:
    first, _ = ensure_certificate(tmp_path, "mx.example")
    text = first.read_bytes()
    assert first.stat().st_mode & 0o077 == 0
    assert ensure_certificate(tmp_path, "mx.example")[0].read_bytes() == text
    assert ensure_certificate(tmp_path, "other.example")[0].read_bytes() != text
    first.write_bytes(b"damaged")
    server_context(*ensure_certificate(tmp_path, "mx.example"))
