"""Indexing the mail that lies there: after an upgrade, or after a change of settings.

A job goes through a workspace's messages, newest first, a page a run: it enqueues the page's index
jobs, behind those of new mail, and itself for the next page.
"""

from uuid import UUID

import msgspec

from mailyard.mailbox.search.index import INDEX, Named
from mailyard.queue.batch import Batch, Handler
from mailyard.queue.engine import Engine
from mailyard.queue.job import MEDIA, LeasedJob, NewJob
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

QUERIES = load("search")

REINDEX = "reindex"
_PAGE = 1_000
_BEHIND = 9  # a priority: new mail goes first
_LAST = UUID(int=(1 << 128) - 1)


class _Place(msgspec.Struct):
    before: UUID
    again: bool


class Reindexer:
    """Starts it, and handles its jobs."""

    def __init__(self, *, database: Database, engine: Engine) -> None:
        self._database = database
        self._engine = engine

    async def start(self, workspace_id: UUID, *, again: bool = False, tx: Connection) -> None:
        """Index what is not; with `again` everything anew. One run a workspace at a time."""
        await self._engine.enqueue([_job(workspace_id, _Place(_LAST, again))], tx)

    def handler(self) -> Handler:
        """What a worker needs to run this."""
        return Handler(kind=REINDEX, queue=MEDIA, handle=self.handle)

    async def handle(self, batch: Batch) -> None:
        """One page of each job."""
        for job in batch.jobs:
            await self._page(batch, job)

    async def _page(self, batch: Batch, job: LeasedJob) -> None:
        if job.workspace_id is None:
            await batch.bury([job], "a reindex job belongs to a workspace")
            return
        place = msgspec.json.decode(job.payload, type=_Place)
        rows = await self._database.fetch(QUERIES.page, job.workspace_id, place.before, _PAGE)
        async with self._database.transaction() as tx:
            if not await batch.complete([job], tx) or not rows:
                return
            if place.again:
                ids = [row["id"] for row in rows]
                for forget in (QUERIES.forget, QUERIES.forget_vectors):
                    await self._database.execute(
                        forget, job.workspace_id, ids, min(ids), max(ids), tx=tx
                    )
            named = [Named(row["id"], row["retention_days"], row["size_bytes"]) for row in rows]
            payload = msgspec.json.encode(named)
            following = _Place(rows[-1]["id"], place.again)
            await self._engine.enqueue(
                [
                    NewJob(MEDIA, INDEX, payload, job.workspace_id, priority=_BEHIND),
                    _job(job.workspace_id, following),
                ],
                tx,
            )


def _job(workspace_id: UUID, place: _Place) -> NewJob:
    return NewJob(
        MEDIA,
        REINDEX,
        msgspec.json.encode(place),
        workspace_id,
        priority=_BEHIND,
        unique_key=f"reindex:{workspace_id}:{place.before}",
    )
