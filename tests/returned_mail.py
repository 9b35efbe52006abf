"""Mail that comes back, as other servers write it, and the listener and worker that take it."""

import asyncio
from collections.abc import Sequence
from uuid import UUID

from sending_world import World

from mailyard.protocol.smtp.envelope import Envelope, Peer
from mailyard.protocol.smtp.reply import Reply
from mailyard.queue.batch import Batch
from mailyard.queue.job import EMAIL_EVENTS
from mailyard.queue.settle import Settler
from mailyard.receiving.accept import Acceptor
from mailyard.sending.delivery import Deliveries, Delivery, StoryEvent
from mailyard.sending.return_path import ReturnPaths
from mailyard.sending.returns.address import ReturnAddresses
from mailyard.sending.returns.mail import ReturnedMail
from mailyard.sending.returns.record import Recorder
from mailyard.sending.suppress import Suppression, Suppressions

RETURNS = "returns.example.org"
PEER = Peer(address="192.0.2.9", port=25, hello="mx.example.com", esmtp=True, tls=False)


def notification(
    recipient: str,
    *,
    action: str = "failed",
    status: str = "5.1.1",
    diagnostic: str = "550 5.1.1 <{}>: Recipient address rejected: User unknown",
    message_id: str = "1",
) -> bytes:
    """A delivery status notification (RFC 3464), as Postfix writes it."""
    said = diagnostic.format(recipient)
    return (
        "From: MAILER-DAEMON@mx.example.com (Mail Delivery System)\r\n"
        "Subject: Undelivered Mail Returned to Sender\r\n"
        f"Message-Id: <{message_id}@mx.example.com>\r\n"
        "MIME-Version: 1.0\r\n"
        'Content-Type: multipart/report; report-type=delivery-status; boundary="=b"\r\n\r\n'
        "--=b\r\nContent-Type: text/plain\r\n\r\n"
        f"I'm sorry to have to inform you. <{recipient}>: {said}\r\n"
        "--=b\r\nContent-Type: message/delivery-status\r\n\r\n"
        "Reporting-MTA: dns; mx.example.com\r\n\r\n"
        f"Final-Recipient: rfc822; {recipient}\r\nAction: {action}\r\nStatus: {status}\r\n"
        f"Diagnostic-Code: smtp; {said}\r\n"
        "--=b\r\nContent-Type: message/rfc822\r\n\r\nSubject: Hello\r\n\r\nHi\r\n--=b--\r\n"
    ).encode()


def complaint(return_path: str, recipient: str) -> bytes:
    """A feedback report (RFC 5965) that quotes the mail with the return-path it had."""
    return (
        "From: fbl@mailbox.example\r\nSubject: FW: Hello\r\nMIME-Version: 1.0\r\n"
        'Content-Type: multipart/report; report-type=feedback-report; boundary="=b"\r\n\r\n'
        "--=b\r\nContent-Type: text/plain\r\n\r\nThis is a complaint.\r\n"
        "--=b\r\nContent-Type: message/feedback-report\r\n\r\n"
        "Feedback-Type: abuse\r\nUser-Agent: Loop/1\r\nVersion: 1\r\n"
        f"Original-Rcpt-To: {recipient}\r\n"
        "--=b\r\nContent-Type: message/rfc822\r\n\r\n"
        f"Return-Path: <{return_path}>\r\nSubject: Hello\r\n\r\nHi\r\n--=b--\r\n"
    ).encode()


class Returns:
    """A world whose mail leaves under return-paths, with what takes and reads what comes back."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.paths = ReturnPaths(domain=RETURNS, keys=[bytes(32)])
        world.return_paths = self.paths
        self.suppressions = Suppressions(database=world.database)
        self.recorder = Recorder(
            database=world.database,
            live=world.live,
            suppressions=self.suppressions,
            clock=world.clock,
        )
        self.acceptor = Acceptor(
            database=world.database,
            engine=world.engine,
            hostname="mx.example.org",
            returns=ReturnAddresses(paths=self.paths, domain=RETURNS),
        )
        self.handler = ReturnedMail(
            database=world.database,
            engine=world.engine,
            recorder=self.recorder,
            paths=self.paths,
            clock=world.clock,
        )
        self.deliveries = Deliveries(database=world.database)

    async def ask(self, address: str) -> Reply:
        """RCPT."""
        answer = self.acceptor.accept_recipient(PEER, "", address)
        return answer if isinstance(answer, Reply) else await answer

    async def take(self, content: bytes, *addresses: str) -> Reply:
        """The end of DATA."""
        envelope = Envelope(PEER, "", addresses, None, True, False)
        answer = self.acceptor.accept_message(envelope, content)
        return answer if isinstance(answer, Reply) else await answer

    async def read(self, wait_s: float = 0.0) -> int:
        """What a worker does with what waits on the lane; how many jobs that were."""
        jobs = await self.world.engine.lease([EMAIL_EVENTS], 100, wait_s, "test")
        if jobs:
            await self.handler.handle(Batch(jobs, Settler(self.world.engine), asyncio.Event()))
        return len(jobs)

    async def come_back(self, content: bytes, *addresses: str) -> None:
        """A mail that is taken and read."""
        reply = await self.take(content, *addresses)
        assert reply.code == 250, reply
        assert await self.read() == 1

    async def story(self, delivery_id: UUID) -> tuple[Delivery, list[StoryEvent]]:
        return await self.deliveries.get(self.world.workspace_id, delivery_id)

    async def listed(self) -> Sequence[Suppression]:
        return await self.suppressions.page(self.world.workspace_id)

    async def close(self) -> None:
        await self.acceptor.close()
