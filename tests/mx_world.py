"""Mail servers on addresses of their own, a DNS that leads to them, and a transport between.

    async with mx_world() as world:
        peer = await world.peer("a.example")            # MX mx.a.example at 127.1.0.1
        world.send("x@a.example")
        await world.settled()

All peers listen on one port, as mail servers do; only its number is not 25.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any
from uuid import UUID, uuid4

from dns_server import ScriptedDns
from smtp_wire import until

from mailyard.core.clock import Clock, SystemClock
from mailyard.net.dns import DnsLimits, Resolver
from mailyard.net.guard import networks, refusal
from mailyard.net.mail_route import MailRouter
from mailyard.protocol.dns_answer import Address
from mailyard.protocol.mta_sts import StsPolicy
from mailyard.ratelimit.adapters.memory import MemoryRateLimit
from mailyard.ratelimit.adapters.memory_leases import MemoryLeases
from mailyard.ratelimit.lease import Leases
from mailyard.ratelimit.ratelimit import RateLimit
from mailyard.sending.shape.book import read_book
from mailyard.sending.source_pool import NoSource
from mailyard.sending.transport import Handoff, Outgoing, Recipient
from mailyard.sending.transports.mx.placing import Sources
from mailyard.sending.transports.mx.road import Roads
from mailyard.sending.transports.mx.secure import Security
from mailyard.sending.transports.mx.source import Source
from mailyard.sending.transports.mx.transport import MxTransport
from mailyard.sending.transports.mx.yard import MxOptions
from mailyard.sending.warmup import Permit

LOOPBACK = networks(["127.0.0.0/8"])


def may_connect(address: Address) -> bool:
    """What an installation allows that has MAILYARD_MX_NETWORKS=127.0.0.0/8."""
    return refusal(str(address), LOOPBACK) is None


BOOK = """
[receiver.default]
connections = 3
messages_per_connection = 100
rate = "10000/s"
recover_every = "1 min"
recover_step = 0.1
"""

Reply = str | Callable[["Session"], Any]


@dataclass
class Session:
    """One connection to a peer."""

    peer: "Peer"
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    mails: int = 0
    recipient: str = ""

    async def say(self, text: str) -> None:
        self.writer.write(text.encode() + b"\r\n")
        await self.writer.drain()


@dataclass
class Peer:
    """A mail server that says what it is told to.

    `says`: what it answers to a verb (GREETING, EHLO, STARTTLS, MAIL, RCPT, DATA, END), as a text
    or by a coroutine that gets the session; without one it answers well.
    """

    says: dict[str, Any] = field(default_factory=dict)
    tls: ssl.SSLContext | None = None
    extensions: tuple[str, ...] = ("PIPELINING", "8BITMIME")
    received: list[tuple[str, bytes]] = field(default_factory=list)
    helloes: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    encrypted: list[bool] = field(default_factory=list)  # of each mail
    sessions: int = 0
    open: int = 0
    most_open: int = 0

    @property
    def addresses(self) -> list[str]:
        return [recipient for recipient, _ in self.received]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.sessions += 1
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        self.sources.append(writer.get_extra_info("peername")[0])
        session = Session(self, reader, writer)
        try:
            await self._talk(session)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client has gone
        finally:
            self.open -= 1
            writer.close()

    async def answer(self, session: Session, verb: str, good: str) -> bool:
        """Say it; whether it was a yes."""
        said = self.says.get(verb, good)
        if callable(said):
            said = await said(session)
        if said:
            await session.say(said)
        return bool(said) and said[0] in "23"

    async def _talk(self, session: Session) -> None:
        if not await self.answer(session, "GREETING", "220 mx ESMTP"):
            return
        while line := (await session.reader.readline()).decode().strip():
            verb = line.split(" ", 1)[0].split(":", 1)[0].upper()
            if verb in ("EHLO", "HELO"):
                self.helloes.append(line.partition(" ")[2])
                secure = session.writer.get_extra_info("ssl_object") is not None
                offered = [*self.extensions, *(["STARTTLS"] if self.tls and not secure else [])]
                await self.answer(session, "EHLO", "\r\n".join(self._lines(offered)))
            elif verb == "STARTTLS":
                if await self.answer(session, "STARTTLS", "220 go ahead") and self.tls:
                    await session.writer.start_tls(self.tls)
            elif verb == "RCPT":
                session.recipient = line.partition("<")[2].partition(">")[0]
                await self.answer(session, "RCPT", "250 2.1.5 ok")
            elif verb == "DATA":
                if await self.answer(session, "DATA", "354 go ahead"):
                    await self._content(session)
            elif verb == "QUIT":
                await session.say("221 bye")
                return
            else:
                await self.answer(session, verb, "250 ok")

    def _lines(self, offered: list[str]) -> list[str]:
        texts = ["mx greets you", *offered]
        return [f"250-{text}" for text in texts[:-1]] + [f"250 {texts[-1]}"]

    async def _content(self, session: Session) -> None:
        content = b""
        while not content.endswith(b"\r\n.\r\n") and content != b".\r\n":
            content += await session.reader.readuntil(b"\n")
        session.mails += 1
        if await self.answer(session, "END", "250 2.0.0 queued"):
            self.received.append((session.recipient, content[:-3]))
            self.encrypted.append(session.writer.get_extra_info("ssl_object") is not None)


class World:
    """See the module."""

    def __init__(self, dns: ScriptedDns, port: int, stack: AsyncExitStack) -> None:
        self.dns = dns
        self.port = port
        self.answers: dict[UUID, Handoff] = {}
        self.by_address: dict[str, Handoff] = {}
        self.outstanding: dict[UUID, str] = {}
        self.suppressed: list[tuple[UUID, str, UUID, str]] = []
        self._stack = stack
        self._hosts = 0
        self.transports: list[MxTransport] = []

    async def peer(self, *domains: str, address: str = "", **what: Any) -> Peer:
        """A mail server, the only one of `domains`."""
        self._hosts += 1
        address = address or f"127.1.{self._hosts // 250}.{self._hosts % 250 + 1}"
        for domain in domains:
            self.dns.add(domain, "MX", f"10 mx.{domains[0]}.")
        if domains:
            self.dns.add(f"mx.{domains[0]}", "A", address)
        peer = Peer(**what)
        await self.listen(peer, address)
        return peer

    async def listen(self, peer: Peer, address: str) -> None:
        server = await asyncio.start_server(peer.serve, address, self.port, limit=1 << 22)
        self._stack.callback(server.close)

    def transport(
        self,
        book: str = "",
        *,
        name: str = "mx",
        clock: Clock | None = None,
        rate: RateLimit | None = None,
        leases: Leases | None = None,
        policies: dict[str, StsPolicy] | None = None,
        verified: ssl.SSLContext | None = None,
        source: Source | None = None,
        sources: Sources | None = None,
        limits: DnsLimits | None = None,
        **more: Any,
    ) -> MxTransport:
        clock = clock or SystemClock()
        resolver = Resolver([self.dns.address], clock, limits or DnsLimits(deadline_s=20.0))
        self._stack.push_async_callback(resolver.close)
        router = MailRouter(resolver, Random(1), ("me.example",), (), may_connect)
        options = {"port": self.port, "idle_s": 30.0, "patience_s": 20.0} | more.pop("options", {})
        transport = MxTransport(
            name=name,
            roads=Roads(router, Policies(policies), clock),
            security=Security(router, verified),
            book=read_book([("book.toml", BOOK), ("extra.toml", book)]),
            rate=rate or MemoryRateLimit(clock=clock),
            leases=leases or MemoryLeases(clock=clock),
            sources=sources or OneSource(source or Source("", "me.example")),
            suppress=lambda *what: self.suppressed.append(what),
            options=MxOptions(**options),
            clock=clock,
            random=Random(1),
            **more,
        )
        self.transports.append(transport)
        return transport

    def send(self, *addresses: str, content: bytes = b"x\r\n", through: int = 0) -> list[UUID]:
        if not self.transports:
            self.transport()
        ids = []
        for address in addresses:
            recipient = Recipient(uuid4(), address)
            ids.append(recipient.delivery_id)
            self.outstanding[recipient.delivery_id] = address
            mail = Outgoing(
                "a@b.example", (recipient,), content, False, False, workspace_id=UUID(int=7)
            )
            self.transports[through].submit(mail, self._done)
        return ids

    def _done(self, handoff: Handoff) -> None:
        assert handoff.delivery_id in self.outstanding, "answered once"
        self.by_address[self.outstanding.pop(handoff.delivery_id)] = handoff
        self.answers[handoff.delivery_id] = handoff

    async def settled(self) -> None:
        await until(lambda: not self.outstanding)

    async def sent(self, *addresses: str, content: bytes = b"x\r\n") -> list[Handoff]:
        """Send, and what was answered."""
        ids = self.send(*addresses, content=content)
        await self.settled()
        return [self.answers[one] for one in ids]


class OneSource:
    """One warm address."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def pick(self, group: str) -> Source | NoSource:
        del group
        return self._source

    def permit(self, source: Source, group: str) -> Permit | None:
        del source, group
        return None

    def refused(self, source: Source, group: str, wait_s: float) -> None:
        raise AssertionError("nobody was asked")

    def gave_back(self, source: Source, group: str) -> None: ...

    def answered(self, source: Source, group: str, bad: str) -> None: ...

    async def keep(self) -> None: ...

    async def flush(self) -> None: ...


class Policies:
    """MTA-STS policies that are known already."""

    def __init__(self, policies: dict[str, StsPolicy] | None) -> None:
        self._policies = policies or {}

    async def policy_for(self, domain: str) -> StsPolicy | None:
        return self._policies.get(domain)


@asynccontextmanager
async def mx_world(*, authenticated: bool = False) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        dns = await stack.enter_async_context(ScriptedDns(authenticated=authenticated))
        reserved = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        port: int = reserved.sockets[0].getsockname()[1]
        stack.callback(reserved.close)
        world = World(dns, port, stack)
        try:
            yield world
        finally:
            for transport in world.transports:
                await transport.close(0.1)


__all__ = ["Peer", "Session", "World", "mx_world"]
