"""Receiving and mailboxes, wired as the program wires them, for tests that send mail in."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

from mailyard.bus.adapters.memory import MemoryBus
from mailyard.bus.live import START, LiveEvents, StoredEvent
from mailyard.core.clock import Clock
from mailyard.core.ids import MESSAGE, parse_type_id
from mailyard.mailbox.follow import Follower as MailboxFollower
from mailyard.mailbox.inbox import Inboxes
from mailyard.mailbox.message import Messages
from mailyard.protocol.smtp.envelope import Envelope, Peer
from mailyard.protocol.smtp.reply import Reply
from mailyard.queue.batch import Batch
from mailyard.queue.engines.postgres import PostgresEngine
from mailyard.queue.job import INBOUND_EMAIL, LeasedJob
from mailyard.queue.settle import Settler
from mailyard.receiving.accept import Acceptor
from mailyard.receiving.elsewhere import Elsewhere
from mailyard.receiving.ingest import Follower, Ingest
from mailyard.storage.database import Database

PEER = Peer(address="192.0.2.1", port=25, hello="peer.test", esmtp=True, tls=False)
MAIL = (
    b"From: Ada <ada@peer.test>\r\nTo: you@inbox.test\r\nSubject: Your code is 4711\r\n"
    b"Message-ID: <1@peer.test>\r\nMIME-Version: 1.0\r\n"
    b'Content-Type: multipart/mixed; boundary="=b"\r\n\r\n'
    b"--=b\r\nContent-Type: text/html\r\n\r\n<p>Hi<script>bad()</script></p>\r\n"
    b"--=b\r\nContent-Type: application/pdf; name=a.pdf\r\nContent-Transfer-Encoding: base64\r\n"
    b"Content-Disposition: attachment; filename=a.pdf\r\n\r\nUERG\r\n--=b--\r\n"
)


def envelope(*recipients: str, reverse_path: str = "ada@peer.test", peer: Peer = PEER) -> Envelope:
    return Envelope(peer, reverse_path, recipients, None, True, False)


def about(subject: str) -> bytes:
    """A small mail with that subject."""
    return f"From: Ada <ada@peer.test>\r\nSubject: {subject}\r\n\r\n{subject}\r\n".encode()


@dataclass
class MailPlatform:
    database: Database
    bus: MemoryBus
    engine: PostgresEngine
    acceptor: Acceptor
    ingest: Ingest
    live: LiveEvents
    inboxes: Inboxes
    messages: Messages

    async def ask(self, recipient: str) -> Reply:
        """RCPT, as the listener asks."""
        answer = self.acceptor.accept_recipient(PEER, "ada@peer.test", recipient)
        return answer if isinstance(answer, Reply) else await answer

    async def hand_over(self, recipients: tuple[str, ...], content: bytes = MAIL) -> Reply:
        """The end of DATA, as the listener asks."""
        answer = self.acceptor.accept_message(envelope(*recipients), content)
        return answer if isinstance(answer, Reply) else await answer

    async def hand_over_dropped(self, recipient: str) -> Reply:
        """A whole transaction whose message nobody keeps."""
        assert (await self.ask(recipient)).code == 250
        return await self.hand_over((recipient,))

    async def send(self, *recipients: str, content: bytes = MAIL) -> UUID:
        """A whole transaction; the id that the 250 names."""
        for recipient in recipients:
            reply = await self.ask(recipient)
            assert reply.code == 250, reply
        reply = await self.hand_over(recipients, content)
        assert reply.code == 250, reply
        return parse_type_id(MESSAGE, reply.text.rpartition(" ")[2])

    async def lease(self) -> list[LeasedJob]:
        return list(await self.engine.lease([INBOUND_EMAIL], 100, 0.0, "test"))

    async def run(self, jobs: list[LeasedJob]) -> None:
        """What a worker does with a batch."""
        await self.ingest.handle(Batch(jobs, Settler(self.engine), asyncio.Event()))

    async def told(self) -> list[StoredEvent]:
        """What the live stream tells, once it is settled: any older transaction of the whole
        server, of another test's database too, holds it back until it has ended."""
        async with asyncio.timeout(60):
            while not (events := await self.live.read_after(START)):
                await asyncio.sleep(0.02)
        return events

    async def deliver(self, *recipients: str, content: bytes = MAIL) -> UUID:
        """Send, and ingest what has come."""
        message_id = await self.send(*recipients, content=content)
        await self.run(await self.lease())
        return message_id


@asynccontextmanager
async def mail_platform(
    database: Database, followers: Sequence[Follower] = (), clock: Clock | None = None
) -> AsyncIterator[MailPlatform]:
    bus = MemoryBus()
    await bus.open()
    engine = PostgresEngine(database=database, bus=bus, clock=clock, upkeep_s=0)
    live = LiveEvents(database=database, bus=bus)
    inboxes = Inboxes(database=database, domains=("inbox.test",))
    acceptor = Acceptor(
        database=database,
        engine=engine,
        hostname="mx.inbox.test",
        patience_s=3.0,
        route_patience_s=1.0,
        elsewhere=Elsewhere(database=database, bus=bus, domains=("inbox.test",)),
    )
    yield MailPlatform(
        database=database,
        bus=bus,
        engine=engine,
        acceptor=acceptor,
        ingest=Ingest(database=database, live=live, followers=followers),
        live=live,
        inboxes=inboxes,
        messages=Messages(
            database=database,
            inboxes=inboxes,
            follower=MailboxFollower(database=database, live=live),
        ),
    )
    await acceptor.close()
    await bus.close()
