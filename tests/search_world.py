"""A workspace with two inboxes, what takes mail in and indexes it, and a search over them."""

import asyncio
from uuid import UUID

from mail_platform import MailPlatform

from mailyard.core.ids import uuid7
from mailyard.mailbox.inbox_value import Inbox, NewInbox
from mailyard.mailbox.search.embedder import Embedder
from mailyard.mailbox.search.index import Indexer, IndexFollower
from mailyard.mailbox.search.search import Found, Search
from mailyard.mailbox.search.vectors import Vectors
from mailyard.queue.batch import Batch
from mailyard.queue.job import MEDIA
from mailyard.queue.settle import Settler
from mailyard.receiving.ingest import Ingest
from mailyard.storage.database import Database


def mail(
    text: str,
    *,
    subject: str = "A subject",
    sender: str = "Ann Example <ann@example.org>",
    to: str = "Team <team@inbox.test>",
    more: str = "",
) -> bytes:
    head = f"From: {sender}\r\nTo: {to}\r\nSubject: {subject}\r\n{more}"
    return f"{head}Content-Type: text/plain; charset=utf-8\r\n\r\n{text}\r\n".encode()


class World:
    """A platform, two inboxes of one workspace, and a search over them."""

    def __init__(
        self, platform: MailPlatform, database: Database, embedder: Embedder | None = None
    ) -> None:
        self.platform = platform
        self.database = database
        self.workspace_id = uuid7()
        self.vectors = vectors = Vectors(database=database, embedder=embedder)
        self.indexer = Indexer(database=database, engine=platform.engine, vectors=vectors)
        self.search = Search(
            database=database, inboxes=platform.inboxes, indexer=self.indexer, vectors=vectors
        )
        platform.ingest = Ingest(
            database=database,
            live=platform.live,
            followers=(IndexFollower(engine=platform.engine),),
        )
        self.inboxes: dict[str, Inbox] = {}

    async def open(self) -> None:
        async with self.database.connection() as connection:
            await connection.execute(
                "INSERT INTO workspace (id, name) VALUES ($1, 'w')", self.workspace_id
            )
        made = await self.platform.inboxes.create(
            self.workspace_id, [NewInbox("a"), NewInbox("b", ttl_s=3_600)]
        )
        self.inboxes = {"a": made[0], "b": made[1]}

    async def index(self) -> None:
        """What a worker does on its lane."""
        jobs = list(await self.platform.engine.lease([MEDIA], 100, 0.0, "test"))
        batch = Batch(jobs, Settler(self.platform.engine), asyncio.Event())
        await self.indexer.handle(batch)
        await self.platform.engine.complete(jobs)

    async def deliver(self, content: bytes, *inboxes: str) -> UUID:
        addresses = [self.inboxes[name].address for name in inboxes or ("a",)]
        return await self.platform.deliver(*addresses, content=content)

    async def fill(self, *mails: bytes) -> list[UUID]:
        ids = [await self.deliver(one) for one in mails]
        await self.index()
        return ids

    async def find(self, text: str, inbox: str | None = None, **more: object) -> Found:
        inbox_id = None if inbox is None else self.inboxes[inbox].id
        return await self.search.find(
            self.workspace_id,
            text,
            inbox_id=inbox_id,
            **more,  # type: ignore[arg-type]
        )

    async def ids(self, text: str, inbox: str | None = None, **more: object) -> list[UUID]:
        return [hit.summary.id for hit in (await self.find(text, inbox, **more)).hits]
