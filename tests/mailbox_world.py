"""Mailboxes as the program wires them, for tests: mail comes in, people act, drafts leave."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from mail_platform import MailPlatform, mail_platform

from mailyard.access.audit import Actor
from mailyard.core.clock import Clock, SystemClock
from mailyard.mailbox.draft import Drafts
from mailyard.mailbox.follow import Follower
from mailyard.mailbox.mailbox import Mailboxes
from mailyard.mailbox.mailbox_value import Changed
from mailyard.mailbox.note import Notes
from mailyard.mailbox.send import Sender, Waker
from mailyard.mailbox.state import Act
from mailyard.queue.batch import Batch, Handler
from mailyard.queue.settle import Settler
from mailyard.receiving.ingest import Arrival
from mailyard.sending.accept import Emails
from mailyard.sending.template import Templates
from mailyard.storage.database import Connection, Database


class Late:
    """The mailboxes' follower, once there is a bus."""

    inner: Follower

    async def follow(self, arrivals: Sequence[Arrival], tx: Connection) -> None:
        await self.inner.follow(arrivals, tx)


@dataclass
class MailboxWorld:
    mail: MailPlatform
    database: Database
    mailboxes: Mailboxes
    drafts: Drafts
    notes: Notes
    sender: Sender
    waker: Waker
    emails: Emails

    async def act(self, workspace_id: UUID, inbox_id: UUID, act: Act, **what: Any) -> Changed:
        async with self.database.transaction() as tx:
            return await self.mailboxes.change(workspace_id, inbox_id, act, tx=tx, **what)

    async def undo(self, workspace_id: UUID, inbox_id: UUID, seq: int | None) -> Changed:
        assert seq is not None
        async with self.database.transaction() as tx:
            return await self.mailboxes.undo(workspace_id, inbox_id, seq, tx=tx)

    async def work(self, handler: Handler) -> int:
        """What a worker does with the jobs that are due; how many there were."""
        leased = await self.mail.engine.lease([handler.queue], 100, 0.0, "test")
        jobs = [job for job in leased if job.kind == handler.kind]
        others = [job for job in leased if job.kind != handler.kind]
        settler = Settler(self.mail.engine)
        if others:
            await self.mail.engine.release(others)
        for job in jobs:
            batch = Batch([job], settler, asyncio.Event())
            await handler.handle(batch)
            await self.mail.engine.complete(batch.unsettled)
        return len(jobs)


@asynccontextmanager
async def mailbox_world(
    database: Database, clock: Clock | None = None
) -> AsyncIterator[MailboxWorld]:
    late, clock = Late(), clock or SystemClock()
    async with mail_platform(database, [late], clock) as mail:
        late.inner = Follower(database=database, live=mail.live)
        mailboxes = Mailboxes(
            database=database,
            inboxes=mail.inboxes,
            live=mail.live,
            engine=mail.engine,
            clock=clock,
        )
        notes = Notes(database=database, inboxes=mail.inboxes, mailboxes=mailboxes, clock=clock)
        drafts = Drafts(
            database=database,
            inboxes=mail.inboxes,
            messages=mail.messages,
            mailboxes=mailboxes,
            notes=notes,
            engine=mail.engine,
            clock=clock,
        )
        emails = Emails(
            database=database, engine=mail.engine, templates=Templates(database=database)
        )
        sender = Sender(
            database=database,
            drafts=drafts,
            mailboxes=mailboxes,
            messages=mail.messages,
            follower=late.inner,
            emails=emails,
            hostname="mx.inbox.test",
            clock=clock,
        )
        waker = Waker(database=database, mailboxes=mailboxes, clock=clock)
        yield MailboxWorld(mail, database, mailboxes, drafts, notes, sender, waker, emails)


ACTOR = Actor("user", "ada@inbox.test", UUID(int=0))
