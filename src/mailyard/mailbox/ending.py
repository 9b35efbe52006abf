"""The end of a single message, before its inbox's.

A line's `deleted_at` is the instant from which on it is gone, and may be set to one that is to
come: from that instant on no list, read, search, wait or export shows the message, whatever runs or
does not. A job that is due then does the rest, as a deletion by hand does (`mailbox.message`):
states go, the mailbox tells of it, the bytes are deleted. Its lines, with what is derived from
them, leave with the sweep of deleted lines. An end whose job was lost is found by a sweep.

An end of its own only shortens: what its inbox lets no mail outlive holds as well.
"""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import msgspec

from mailyard.bus.live import LiveEvents
from mailyard.cache.layered import LayeredCache
from mailyard.core import limits
from mailyard.core.clock import Clock, SystemClock
from mailyard.core.errors import InvalidInput, NotFound
from mailyard.mailbox.follow import Follower
from mailyard.mailbox.message import mail_tag
from mailyard.queue.batch import Batch, Handler
from mailyard.queue.engine import Engine
from mailyard.queue.job import CLEANUP, NewJob
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

QUERIES = load("message")
RECEIVING = load("receiving")
END = "end-message"
_JOBS_PER_BATCH = 50
_SWEPT = 500

_PAYLOAD = msgspec.json.Decoder(UUID)


class Ending(NamedTuple):
    """When a message ends, and in how many inboxes it lies. None: as its inboxes say."""

    expires_at: datetime | None
    inboxes: int


class Endings:
    """Ends of messages of all workspaces. The caller writes the audit rows of `set`."""

    def __init__(
        self,
        *,
        database: Database,
        engine: Engine,
        follower: Follower,
        live: LiveEvents,
        cache: LayeredCache | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._database = database
        self._engine = engine
        self._follower = follower
        self._live = live
        self._cache = cache
        self._clock = clock or SystemClock()

    async def set(
        self, workspace_id: UUID, message_id: UUID, expires_at: datetime | None, tx: Connection
    ) -> Ending:
        """Let a message end at `expires_at` in all its inboxes; None: with them.

        Raises InvalidInput for a moment that is past or too far, NotFound.
        """
        if expires_at is not None:
            ahead = expires_at - self._clock.now()
            if not timedelta() < ahead <= timedelta(seconds=limits.INBOX_TTL_S):
                most = int(limits.INBOX_TTL_S)
                raise InvalidInput(f"a moment to come, at most {most} seconds", field="expires_at")
        await self._database.fetch(RECEIVING.hold_classes, [workspace_id], tx=tx)
        rows = await self._database.fetch(
            QUERIES.set_end, workspace_id, message_id, expires_at, tx=tx
        )
        if not rows:
            raise NotFound("no such message")
        if expires_at is not None:
            payload = msgspec.json.encode(message_id)
            job = NewJob(CLEANUP, END, payload, workspace_id, run_at=expires_at)
            await self._engine.enqueue([job], tx)
        await self._forget_lists(workspace_id, {row["inbox_id"] for row in rows}, tx)
        return Ending(expires_at, len(rows))

    def handler(self) -> Handler:
        """What the worker runs."""
        return Handler(END, CLEANUP, self.handle, batch_size=_JOBS_PER_BATCH, concurrency=1)

    async def handle(self, batch: Batch) -> None:
        """End what the jobs name, where its time has come: it may have been put off meanwhile."""
        due: dict[UUID, list[UUID]] = {}
        for job in batch.jobs:
            try:
                message_id = _PAYLOAD.decode(job.payload)
            except msgspec.DecodeError as error:
                await batch.bury([job], f"the payload is no message: {error}")
                continue
            if job.workspace_id is None:
                await batch.bury([job], "a message is a workspace's")
                continue
            due.setdefault(job.workspace_id, []).append(message_id)
        for workspace_id, message_ids in due.items():
            await self._end(workspace_id, message_ids)

    async def sweep(self) -> None:
        """End what is due and whose job was lost."""
        while True:
            rows = await self._database.fetch(QUERIES.due_ends, _SWEPT)
            due: dict[UUID, list[UUID]] = {}
            for row in rows:
                due.setdefault(row["workspace_id"], []).append(row["message_id"])
            for workspace_id, message_ids in due.items():
                await self._end(workspace_id, message_ids)
            if len(rows) < _SWEPT:
                return

    async def _end(self, workspace_id: UUID, message_ids: Sequence[UUID]) -> None:
        ids = list(dict.fromkeys(message_ids))
        places = (workspace_id, ids, min(ids), max(ids))
        async with self._database.transaction() as tx:
            await self._database.fetch(RECEIVING.hold_classes, [workspace_id], tx=tx)
            gone = await self._database.fetch(QUERIES.ended_lines, *places, tx=tx)
            if not gone:
                return
            await self._follower.forget(workspace_id, gone, tx)
            touched = list({row["message_id"] for row in gone})
            await self._database.execute(
                QUERIES.delete_bytes, workspace_id, touched, min(touched), max(touched), tx=tx
            )
            await self._forget_lists(workspace_id, {row["inbox_id"] for row in gone}, tx)
        self._live.announced()

    async def _forget_lists(
        self, workspace_id: UUID, inboxes: Collection[UUID], tx: Connection
    ) -> None:
        if self._cache is not None:
            await self._cache.change(workspace_id, [mail_tag(one) for one in inboxes], tx)
