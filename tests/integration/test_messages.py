"""Mail on its way from the accepting process into inboxes, and out of them again."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import UUID

import pytest

from mailyard.bus.adapters.memory import MemoryBus
from mailyard.bus.live import LiveEvents
from mailyard.core.errors import NotFound
from mailyard.core.ids import MESSAGE, parse_type_id, uuid7
from mailyard.mailbox.inbox import Inboxes, NewInbox
from mailyard.mailbox.message import Messages
from mailyard.protocol.smtp.envelope import Envelope, Peer
from mailyard.queue.engines.postgres import PostgresEngine
from mailyard.queue.job import INBOUND_EMAIL
from mailyard.queue.settle import Settler
from mailyard.queue.worker import Batch
from mailyard.receiving.accept import Acceptor
from mailyard.receiving.ingest import Ingest
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


@dataclass
class Platform:
    """Receiving, wired as the program wires it."""

    database: Database
    engine: PostgresEngine
    acceptor: Acceptor
    ingest: Ingest
    live: LiveEvents
    inboxes: Inboxes
    messages: Messages

    async def send(self, *recipients: str, content: bytes = MAIL) -> UUID:
        """What a peer does; the id that the 250 names."""
        for recipient in recipients:
            answer = self.acceptor.accept_recipient(PEER, "ada@peer.test", recipient)
            reply = answer if hasattr(answer, "code") else await answer
            assert reply.code == 250, reply
        answer = self.acceptor.accept_message(
            Envelope(PEER, "ada@peer.test", recipients, None, True, False), content
        )
        reply = answer if hasattr(answer, "code") else await answer
        assert reply.code == 250, reply
        return parse_type_id(MESSAGE, reply.text.rpartition(" ")[2])

    async def work(self) -> int:
        """What a worker does; how many jobs there were."""
        jobs = await self.engine.lease([INBOUND_EMAIL], 100, 0.0, "test")
        if jobs:
            batch = Batch(jobs, Settler(self.engine), STOPPING)
            await self.ingest.handle(batch)
        return len(jobs)

    async def deliver(self, *recipients: str, content: bytes = MAIL) -> UUID:
        message_id = await self.send(*recipients, content=content)
        assert await self.work() > 0
        return message_id


STOPPING = asyncio.Event()


@pytest.fixture
async def platform(database: Database) -> AsyncIterator[Platform]:
    bus = MemoryBus()
    await bus.open()
    engine = PostgresEngine(database=database, bus=bus, upkeep_s=0)
    live = LiveEvents(database=database, bus=bus)
    inboxes = Inboxes(database=database, domains=("inbox.test",))
    acceptor = Acceptor(database=database, engine=engine, hostname="mx.inbox.test")
    yield Platform(
        database=database,
        engine=engine,
        acceptor=acceptor,
        ingest=Ingest(database=database, live=live),
        live=live,
        inboxes=inboxes,
        messages=Messages(database=database, inboxes=inboxes),
    )
    await acceptor.close()
    await bus.close()


@pytest.fixture
def workspace_id() -> UUID:
    return uuid7()


async def test_a_message_is_listed_read_and_taken_apart(
    platform: Platform, workspace_id: UUID
) -> None:
    [ada] = await platform.inboxes.create(workspace_id, [NewInbox("ada", ttl_s=3600)])
    message_id = await platform.deliver("Ada@inbox.test")
    [line] = (await platform.messages.list(workspace_id, ada.id)).items
    assert line.id == message_id
    assert (line.from_address, line.from_name) == ("ada@peer.test", "Ada")
    assert (line.subject, line.attachments) == ("Your code is 4711", 1)

    message = await platform.messages.read(workspace_id, message_id)
    assert message.content.html == "<p>Hi</p>"
    assert "script" in (message.content.html_source or "")
    assert dict(message.content.headers)["Message-ID"] == "<1@peer.test>"
    assert (message.reverse_path, message.peer) == ("ada@peer.test", "192.0.2.1")

    file = await platform.messages.attachment(workspace_id, message_id, 0)
    assert (file.attachment.filename, file.content) == ("a.pdf", b"PDF")
    with pytest.raises(NotFound):
        await platform.messages.attachment(workspace_id, message_id, 1)
