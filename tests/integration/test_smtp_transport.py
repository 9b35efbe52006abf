"""The pooled SMTP transport: against our listener, smtp-sink, and servers that misbehave."""

import asyncio
import shutil
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import uvloop
from smtp_wire import NotingHandler, listening, tls_in_front, until

from mailyard.core.backoff import Backoff
from mailyard.net.tls import client_context, ensure_certificate, server_context
from mailyard.protocol.smtp.client_mail import StartTls
from mailyard.protocol.smtp.session import SessionConfig
from mailyard.sending.transport import Handoff, Outcome, Outgoing, Recipient
from mailyard.sending.transports.smtp import SmtpOptions, SmtpTransport

QUICK = Backoff(first_s=0.02, cap_s=0.05)


@pytest.fixture(scope="module")
def event_loop_policy() -> uvloop.EventLoopPolicy:
    """The loop of production."""
    return uvloop.EventLoopPolicy()


class Sender:
    """A transport and the answers it gave."""

    def __init__(self, port: int, *, tls: ssl.SSLContext | None = None, **options: object) -> None:
        self.answers: dict[UUID, list[Handoff]] = {}
        self.open: set[UUID] = set()
        self.transport = SmtpTransport(
            name="relay",
            host="127.0.0.1",
            port=port,
            hello="me.example",
            tls_context=tls,
            options=SmtpOptions(**{"backoff": QUICK} | options),  # type: ignore[arg-type]
        )

    def send(self, *addresses: str, content: bytes = b"x\r\n", **flags: bool) -> list[UUID]:
        recipients = tuple(Recipient(uuid4(), address) for address in addresses or ("c@d.example",))
        ids = [recipient.delivery_id for recipient in recipients]
        self.open.update(ids)
        flags = {"eight_bit": False, "smtp_utf8": False} | flags
        mail = Outgoing("a@b.example", recipients, content, **flags)
        self.transport.submit(mail, self.note)
        assert self.open.issuperset(ids), "the answer never comes from inside submit"
        return ids

    def note(self, handoff: Handoff) -> None:
        self.answers.setdefault(handoff.delivery_id, []).append(handoff)
        self.open.discard(handoff.delivery_id)

    async def settled(self) -> Counter[Outcome]:
        """Outcomes of all that was sent; every recipient was answered exactly once."""
        await until(lambda: not self.open)
        assert all(len(answers) == 1 for answers in self.answers.values())
        return Counter(answers[0].outcome for answers in self.answers.values())

    def outcomes(self, ids: list[UUID]) -> list[Outcome]:
        return [self.answers[identifier][0].outcome for identifier in ids]


@asynccontextmanager
async def sending(port: int, **options: object) -> AsyncIterator[Sender]:
    sender = Sender(port, **options)  # type: ignore[arg-type]
    try:
        yield sender
    finally:
        await sender.transport.close(1)


async def test_many_mails_go_over_few_connections_and_arrive_whole() -> None:
    handler = NotingHandler()
    async with listening(handler) as listener, sending(listener.port, connections=3) as sender:
        for n in range(200):
            sender.send(content=b".%d\r\n..\r\n" % n)
        assert await sender.settled() == {Outcome.ACCEPTED: 200}
        assert sorted(content for _, content in handler.stored) == sorted(
            b".%d\r\n..\r\n" % n for n in range(200)
        )
        assert len({peer.port for peer in handler.peers}) <= 3


async def test_every_recipient_gets_its_own_answer() -> None:
    handler = NotingHandler()
    async with listening(handler) as listener, sending(listener.port) as sender:
        ids = sender.send("a@d.example", "no@d.example", "b@d.example")
        nobody = sender.send("no@d.example")
        await sender.settled()
        assert sender.outcomes(ids) == [Outcome.ACCEPTED, Outcome.NEVER, Outcome.ACCEPTED]
        refused = sender.answers[ids[1]][0]
        assert (refused.reply_code, refused.transport) == (550, "relay")
        assert refused.reply == "5.1.1 No such mailbox"
        assert sender.outcomes(nobody) == [Outcome.NEVER]
        assert handler.stored[0][0].recipients == ("a@d.example", "b@d.example")


async def test_a_message_of_ten_megabytes_is_carried() -> None:
    handler = NotingHandler()
    content = (b"x" * 70 + b"\r\n") * 150_000
    async with listening(handler) as listener, sending(listener.port) as sender:
        sender.send(content=content)
        sender.send()
        assert await sender.settled() == {Outcome.ACCEPTED: 2}
        assert content in [stored for _, stored in handler.stored]


async def test_too_large_for_the_peer_is_never() -> None:
    session = SessionConfig("mx.example", message_bytes=1000)
    handler = NotingHandler()
    async with (
        listening(handler, session=session) as listener,
        sending(listener.port) as sender,
    ):
        sender.send(content=b"x" * 2000 + b"\r\n")
        assert await sender.settled() == {Outcome.NEVER: 1}


async def test_idle_connections_are_closed_and_opened_again() -> None:
    handler = NotingHandler()
    async with listening(handler) as listener, sending(listener.port, idle_s=0.0) as sender:
        sender.send()
        await sender.settled()
        await until(lambda: not listener.connections)
        sender.send()
        assert await sender.settled() == {Outcome.ACCEPTED: 2}


async def test_close_finishes_what_was_submitted_and_says_quit() -> None:
    handler = NotingHandler()
    async with listening(handler) as listener:
        sender = Sender(listener.port, connections=2)
        for _ in range(50):
            sender.send()
        await sender.transport.close(10)
        assert await sender.settled() == {Outcome.ACCEPTED: 50}
        await until(lambda: not listener.connections)


# TLS.


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    return server_context(*ensure_certificate(tmp_path_factory.mktemp("tls"), "mx.example"))


@pytest.mark.parametrize("starttls", [StartTls.OPPORTUNISTIC, StartTls.REQUIRED])
async def test_mail_is_encrypted_when_the_peer_offers_it(
    tls: ssl.SSLContext, starttls: StartTls
) -> None:
    handler = NotingHandler()
    async with listening(handler, tls_context=tls) as listener:
        options = {"tls": client_context(verify=False), "starttls": starttls}
        async with sending(listener.port, **options) as sender:
            for _ in range(20):
                sender.send()
            assert await sender.settled() == {Outcome.ACCEPTED: 20}
            assert all(peer.tls for peer in handler.peers)


async def test_required_tls_is_not_given_up(tls: ssl.SSLContext) -> None:
    handler = NotingHandler()
    required = {"tls": client_context(verify=False), "starttls": StartTls.REQUIRED}
    async with listening(handler) as listener, sending(listener.port, **required) as sender:
        sender.send()
        assert await sender.settled() == {Outcome.LATER: 1}
    verified = {"tls": client_context(verify=True), "starttls": StartTls.REQUIRED}
    async with (
        listening(handler, tls_context=tls) as listener,
        sending(listener.port, **verified) as sender,
    ):
        sender.send()
        assert await sender.settled() == {Outcome.LATER: 1}
    assert not handler.stored


async def test_without_a_context_of_its_own_required_tls_means_a_verified_peer(
    tls: ssl.SSLContext,
) -> None:
    handler = NotingHandler()
    async with listening(handler, tls_context=tls) as listener:
        for starttls, outcome in (
            (StartTls.REQUIRED, Outcome.LATER),
            (StartTls.OPPORTUNISTIC, Outcome.ACCEPTED),
        ):
            async with sending(listener.port, starttls=starttls) as sender:
                sender.send()
                assert await sender.settled() == {outcome: 1}
    assert [peer.tls for peer in handler.peers] == [True]


async def test_opportunistic_tls_that_fails_goes_on_in_the_clear(tls: ssl.SSLContext) -> None:
    handler = NotingHandler()
    async with (
        listening(handler, tls_context=tls) as listener,
        sending(listener.port, tls=client_context(verify=True)) as sender,
    ):
        sender.send()
        assert await sender.settled() == {Outcome.ACCEPTED: 1}
        assert not handler.peers[0].tls


async def test_tls_on_connect_comes_before_the_greeting_and_instead_of_starttls(
    tls: ssl.SSLContext,
) -> None:
    handler = NotingHandler()
    async with (
        listening(handler, tls_context=tls) as listener,
        tls_in_front(listener.port, tls) as port,
        sending(port, tls_on_connect=True) as sender,
    ):
        ids = [sender.send(content=b"x" * 200_000 + b"\r\n")[0] for _ in range(20)]
        assert await sender.settled() == {Outcome.ACCEPTED: len(ids)}
        assert len(handler.stored) == 20
        assert not any(peer.tls for peer in handler.peers), "TLS was there: no STARTTLS was said"


async def test_tls_on_connect_verifies_the_relay_when_tls_is_required(
    tmp_path: Path,
) -> None:
    certificate = ensure_certificate(tmp_path, "mx.example")[0]
    trusting = client_context(verify=True)
    trusting.load_verify_locations(certificate)
    trusting.check_hostname = False  # the relay is reached by its address here
    required = {"tls_on_connect": True, "starttls": StartTls.REQUIRED}
    handler = NotingHandler()
    async with (
        listening(handler) as listener,
        tls_in_front(listener.port, server_context(certificate, certificate)) as port,
    ):
        async with sending(port, **required) as sender:
            ids = sender.send()
            assert await sender.settled() == {Outcome.LATER: 1}
            assert "certificate verify failed" in sender.answers[ids[0]][0].reply
        async with sending(port, tls=trusting, **required) as sender:
            sender.send()
            assert await sender.settled() == {Outcome.ACCEPTED: 1}


async def test_tls_on_connect_never_goes_on_in_the_clear() -> None:
    handler = NotingHandler()
    async with (
        listening(handler) as listener,
        sending(listener.port, tls_on_connect=True) as sender,
    ):
        for _ in range(3):
            sender.send()
        assert await sender.settled() == {Outcome.LATER: 3}
    assert not handler.peers


# Servers that misbehave.

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def misbehaving(script: Script) -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await script(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def playing(*replies: bytes, hang: bool = False) -> Script:
    """Greets, answers EHLO with PIPELINING, then one of `replies` to each thing that is due: MAIL,
    RCPT, DATA and content in turn. After the last it closes, or says nothing more."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 nasty\r\n")
        await reader.readuntil(b"\r\n")
        writer.write(b"250-nasty\r\n250 PIPELINING\r\n")
        for number, reply in enumerate(replies):
            await reader.readuntil(b"\r\n.\r\n" if number % 4 == 3 else b"\r\n")
            writer.write(reply)
            await writer.drain()
        while hang and await reader.read(1000):
            continue

    return script


OK = b"250 ok\r\n"
GO = b"354 go\r\n"


@pytest.mark.parametrize(
    ("replies", "outcome"),
    [
        ([], Outcome.LATER),
        ([OK], Outcome.LATER),
        ([OK, OK], Outcome.LATER),
        ([OK, OK, b"35"], Outcome.LATER),
        ([OK, OK, GO], Outcome.UNKNOWN),
        ([OK, OK, GO, b""], Outcome.UNKNOWN),
        ([OK, OK, GO, b"25"], Outcome.UNKNOWN),
        ([OK, OK, GO, b"250-ok\r\n"], Outcome.UNKNOWN),
        ([OK, OK, GO, b"garbage\r\n"], Outcome.UNKNOWN),
        ([OK, OK, GO, OK], Outcome.ACCEPTED),
        ([OK, OK, GO, b"421 bye\r\n"], Outcome.LATER),
        ([OK, OK, GO, b"554 spam\r\n"], Outcome.NEVER),
        ([OK, OK, OK], Outcome.LATER),
        ([OK, OK, b"554 no\r\n"], Outcome.NEVER),
        ([OK, b"450 grey\r\n", b"503 no\r\n"], Outcome.LATER),
        ([b"421 busy\r\n"], Outcome.LATER),
        ([b"\xff\x00\r\n"], Outcome.LATER),
    ],
)
async def test_wherever_the_connection_breaks_the_outcome_says_what_is_known(
    replies: list[bytes], outcome: Outcome
) -> None:
    async with misbehaving(playing(*replies)) as port, sending(port) as sender:
        sender.send()
        assert await sender.settled() == {outcome: 1}


@pytest.mark.parametrize("cut", range(0, 64, 2))
async def test_a_server_cut_at_any_byte_gives_every_mail_one_answer(cut: int) -> None:
    answers = b"220 x\r\n250-x\r\n250 PIPELINING\r\n250 a\r\n250 b\r\n354 c\r\n250 d\r\n"[:cut]

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for line in answers.splitlines(keepends=True):
            writer.write(line)
            await asyncio.sleep(0)

    async with misbehaving(script) as port, sending(port, connections=1) as sender:
        sender.send()
        sender.send()
        outcomes = await sender.settled()
        assert Outcome.NEVER not in outcomes


@pytest.mark.parametrize(
    ("replies", "outcome"), [([OK], Outcome.LATER), ([OK, OK, GO], Outcome.UNKNOWN)]
)
async def test_a_server_that_falls_silent_is_given_up(
    replies: list[bytes], outcome: Outcome
) -> None:
    script = playing(*replies, hang=True)
    async with misbehaving(script) as port, sending(port, reply_timeout_s=0.2) as sender:
        sender.send()
        assert await sender.settled() == {outcome: 1}


async def test_a_server_that_stops_reading_a_long_content_is_given_up() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await playing(OK, OK, GO)(reader, writer)
        await asyncio.sleep(20)

    async with misbehaving(script) as port, sending(port, reply_timeout_s=1.0) as sender:
        [identifier] = sender.send(content=(b"x" * 78 + b"\r\n") * 250_000)
        assert await sender.settled() == {Outcome.LATER: 1}
        assert "took none of the content" in sender.answers[identifier][0].reply


async def test_a_listener_that_drains_again_and_again_costs_no_mail_a_delay() -> None:
    handler = NotingHandler()
    async with listening(handler) as first:
        port = first.port
        async with sending(port, connections=6) as sender:
            for _ in range(3_000):
                sender.send()
            for _ in range(4):
                await until(lambda: handler.stored)
                handler.stored.clear()
                for connection in list(first.connections):
                    connection.drain()
                await asyncio.sleep(0.03)
            assert await sender.settled() == {Outcome.ACCEPTED: 3_000}


@pytest.mark.parametrize(
    "greeting",
    [b"", b"554 no service\r\n", b"421 later\r\n", b"SSH-2.0-x\r\n", b"220 " + b"x" * 100_000],
)
async def test_a_server_that_does_not_greet_costs_no_mail(greeting: bytes) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        await writer.drain()

    async with misbehaving(script) as port, sending(port) as sender:
        sender.send()
        assert await sender.settled() == {Outcome.LATER: 1}


async def test_a_session_that_ends_between_mails_costs_the_next_mail_nothing() -> None:
    replies = [OK, OK, GO, OK + b"421 4.7.0 one mail a session\r\n"]
    async with misbehaving(playing(*replies)) as port, sending(port, connections=1) as sender:
        sender.send()
        sender.send()
        assert await sender.settled() == {Outcome.ACCEPTED: 2}


async def test_an_unreachable_destination_answers_later_and_is_tried_again() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        async with sending(port) as sender:
            for _ in range(30):
                sender.send()
            assert await sender.settled() == {Outcome.LATER: 30}
            [reply] = {answers[0].reply for answers in sender.answers.values()}
            assert reply.startswith(f"connecting to 127.0.0.1:{port} failed")
            sender.send()
            assert await sender.settled() == {Outcome.LATER: 31}


async def test_close_cuts_a_silent_server_and_answers_everything() -> None:
    async with misbehaving(playing(OK, OK, GO, hang=True)) as port:
        sender = Sender(port, connections=1)
        for _ in range(3):
            sender.send()
        await asyncio.sleep(0.1)
        await asyncio.wait_for(sender.transport.close(0.2), 10)
        assert await sender.settled() == {Outcome.UNKNOWN: 1, Outcome.LATER: 2}
        sender.send()
        assert (await sender.settled())[Outcome.LATER] == 3


async def test_a_callback_that_raises_harms_nobody_else() -> None:
    async with listening(NotingHandler()) as listener, sending(listener.port) as sender:

        def explode(_: Handoff) -> None:
            raise ValueError("bug in the caller")

        recipient = (Recipient(uuid4(), "c@d.example"),)
        mail = Outgoing("a@b.example", recipient, b"x\r\n", False, False)
        sender.transport.submit(mail, explode)
        sender.send()
        assert await sender.settled() == {Outcome.ACCEPTED: 1}


# Postfix's sink.

SMTP_SINK = shutil.which("smtp-sink") or "/usr/sbin/smtp-sink"


@asynccontextmanager
async def sink(*options: str) -> AsyncIterator[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        SMTP_SINK, "-u", "nobody", *options, f"127.0.0.1:{port}", "100"
    )
    try:
        for _ in range(200):
            try:
                (await asyncio.open_connection("127.0.0.1", port))[1].close()
                break
            except OSError:
                await asyncio.sleep(0.02)
        yield port
    finally:
        process.terminate()
        await process.wait()


@pytest.mark.parametrize(
    ("options", "outcome"),
    [
        ([], Outcome.ACCEPTED),
        (["-e"], Outcome.ACCEPTED),
        (["-p"], Outcome.ACCEPTED),
        (["-r", "."], Outcome.LATER),
        (["-r", "rcpt"], Outcome.LATER),
        (["-f", "rcpt"], Outcome.NEVER),
        (["-f", "data"], Outcome.NEVER),
        (["-f", "."], Outcome.NEVER),
        (["-q", "data"], Outcome.LATER),
    ],
    ids=str,
)
async def test_smtp_sink_in_all_its_moods(options: list[str], outcome: Outcome) -> None:
    async with sink(*options) as port, sending(port, connections=3) as sender:
        for _ in range(20):
            sender.send("a@d.example", "b@d.example", content=b"Subject: x\r\n\r\n.\r\n")
        assert await sender.settled() == {outcome: 40}


async def test_eight_bit_content_is_never_sent_to_a_seven_bit_peer() -> None:
    async with sink("-8") as port, sending(port) as sender:
        [identifier] = sender.send(content=b"\xc3\xa4\r\n", eight_bit=True)
        assert await sender.settled() == {Outcome.NEVER: 1}
        assert sender.answers[identifier][0].reply.startswith("5.6.3 ")
