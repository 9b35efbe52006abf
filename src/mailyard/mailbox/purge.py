"""A purge leaves no byte of inboxes behind: not in tables or indexes, not in caches, not in events.

To delete an inbox hides it at once; its bytes leave with their partition, on their day, or within
the hour where they lie in one that stays. A purge deletes them now, wherever they are: lines and
messages, all that is derived from them (`storage.derived`), caches by their tags, the
answers of models, DMARC and TLS reports that came to these inboxes alone, live events
(their places stay, so that no reader's cursor is off), what webhooks were told, answers kept for
idempotency keys, what the audit log said was there, what dead letters say of their failure (it may
quote a mail), and bytes in the blob store. A message that another inbox has too stays for that one,
and forgets this one.

It ends the inboxes in the caller's transaction and does the rest as a job, in steps that hold no
lock for long; a job that runs again goes on where the last one stopped. Inboxes that have ended
where no partition leaves soon are forgotten in the same steps: their rows go, and nothing is
blanked that somebody may want to know (events, the audit log).

What a purge cannot reach is said in docs/INBOXES.md: pages of the database until they are written
over, its log, backups, and what has been sent on.
"""

from collections.abc import Sequence
from uuid import UUID

import msgspec

from mailyard.bus.live import ANALYSIS_DONE, MESSAGE_AUTHENTICATED
from mailyard.cache.layered import LayeredCache
from mailyard.core.errors import InvalidInput, NotFound
from mailyard.core.ids import INBOX, MESSAGE, lowest_at, time_of, type_id
from mailyard.core.limits import INBOXES_PER_BATCH
from mailyard.mailbox.inbox import tags_of
from mailyard.queue.batch import Batch, Handler
from mailyard.queue.engine import Engine
from mailyard.queue.job import CLEANUP, LeasedJob, NewJob
from mailyard.receiving.reports import TAG as REPORTS_TAG
from mailyard.storage.blob_upkeep import BlobUpkeep
from mailyard.storage.database import Connection, Database
from mailyard.storage.derived import delete_of_inboxes, delete_of_lines, delete_of_messages
from mailyard.storage.queries import load

_SQL = load("purge")
_EXPIRY_SQL = load("expiry")
PURGE = "purge"
FORGET = "forget-inboxes"
ENDED_KEPT_S = 3_600.0  # for whoever looks at it this moment
_ENDED = 500  # a sweep
LINES_A_STEP = 2_000
_OF_MESSAGES_ALONE = (MESSAGE_AUTHENTICATED, ANALYSIS_DONE)  # live events that name no inbox

_PAYLOAD = msgspec.json.Decoder(list[UUID])


class Purges:
    """Purges inboxes of all workspaces. The caller writes the audit rows of `ask`."""

    def __init__(
        self,
        *,
        database: Database,
        engine: Engine,
        cache: LayeredCache | None = None,
        blobs: BlobUpkeep | None = None,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._engine = engine
        self._cache = cache

    def handlers(self) -> list[Handler]:
        """What the worker runs."""
        return [
            Handler(kind, CLEANUP, self.handle, batch_size=1, concurrency=1)
            for kind in (PURGE, FORGET)
        ]

    async def sweep(self) -> None:
        """Ask for the rows of inboxes to go that have ended where no partition leaves soon."""
        rows = await self._database.fetch(_SQL.ended_inboxes, ENDED_KEPT_S, _ENDED)
        by_workspace: dict[UUID, list[UUID]] = {}
        for row in rows:
            by_workspace.setdefault(row["workspace_id"], []).append(row["id"])
        jobs = [
            NewJob(
                CLEANUP,
                FORGET,
                msgspec.json.encode(ids),
                workspace_id,
                unique_key=f"{FORGET}:{workspace_id}",
            )
            for workspace_id, ids in by_workspace.items()
        ]
        if jobs:
            await self._engine.enqueue(jobs)

    async def ask(self, workspace_id: UUID, inbox_ids: Sequence[UUID], tx: Connection) -> None:
        """End the inboxes now, living or expired, and purge them soon. Raises NotFound where one is
        not there (any more), InvalidInput."""
        if not 1 <= len(inbox_ids) <= INBOXES_PER_BATCH:
            raise InvalidInput(f"1 to {INBOXES_PER_BATCH} inboxes", field="inbox_ids")
        wanted = list(dict.fromkeys(inbox_ids))
        arguments = (workspace_id, wanted, min(wanted))
        found = await self._database.fetch(_SQL.purge_inboxes, *arguments, tx=tx)
        if len(found) < len(wanted):
            raise NotFound("no such inbox")
        await self._database.execute(_SQL.end_inboxes, *arguments, tx=tx)
        await self._forget_cached(workspace_id, wanted, tx)
        await self._engine.enqueue([_job(workspace_id, wanted)], tx)

    async def handle(self, batch: Batch) -> None:
        """Purge what the jobs name."""
        for job in batch.jobs:
            try:
                inbox_ids = _PAYLOAD.decode(job.payload)
            except msgspec.DecodeError as error:
                await batch.bury([job], f"the payload is no list of inboxes: {error}")
                continue
            await self._purge(batch, job, inbox_ids)

    async def _purge(self, batch: Batch, job: LeasedJob, inbox_ids: list[UUID]) -> None:
        workspace_id = job.workspace_id
        if workspace_id is None or not inbox_ids:
            await batch.bury([job], "a purge is of inboxes of a workspace")
            return
        while not batch.stopping.is_set():
            async with self._database.transaction() as tx:
                more = await self._step(workspace_id, inbox_ids, job.kind == PURGE, tx)
            if not more:
                async with self._database.transaction() as tx:
                    await self._last_step(workspace_id, inbox_ids, job.kind == PURGE, tx)
                if self._blobs is not None:
                    # Away: the job comes again. What has ended by itself waits for its backups.
                    await self._blobs.forget(workspace_id if job.kind == PURGE else None)
                return
        await batch.release([job])

    async def _step(
        self, workspace_id: UUID, inbox_ids: list[UUID], wholly: bool, tx: Connection
    ) -> bool:
        """Delete some lines with what follows from them; whether there may be more."""
        lines = await self._database.fetch(
            _SQL.next_lines, workspace_id, inbox_ids, min(inbox_ids), LINES_A_STEP, tx=tx
        )
        if not lines:
            return False
        places = [line["inbox_id"] for line in lines]
        messages = [line["message_id"] for line in lines]
        low, high = min(messages), max(messages)
        await delete_of_lines(self._database, tx, workspace_id, places, messages)
        await self._database.execute(
            _EXPIRY_SQL.drop_lines, workspace_id, places, messages, low, high, tx=tx
        )
        distinct = list(dict.fromkeys(messages))
        gone = await self._database.fetch(
            _SQL.drop_unseen, workspace_id, distinct, low, high, inbox_ids, tx=tx
        )
        unseen = [row["id"] for row in gone]
        if unseen:
            await self._drop_derived(workspace_id, unseen, wholly, tx)
        if wholly and unseen:
            # What names an inbox is forgotten at the end, by its inbox; here what names a message
            # alone, and what other inboxes were told of one that came for several.
            kinds = None if any(row["shared"] for row in gone) else _OF_MESSAGES_ALONE
            await self._forget_elsewhere(workspace_id, inbox_ids, (), unseen, kinds, tx)
            await self._database.execute(_SQL.blank_dead, workspace_id, unseen, tx=tx)
        return True

    async def _drop_derived(
        self, workspace_id: UUID, unseen: list[UUID], wholly: bool, tx: Connection
    ) -> None:
        """What was derived of messages that are gone. The answers of models too, which else stay
        for ever, and which nobody can open without the mail."""
        low, high = min(unseen), max(unseen)
        answers = await self._database.fetch(
            _SQL.results_of, workspace_id, unseen, low, high, tx=tx
        )
        await delete_of_messages(self._database, tx, workspace_id, unseen)
        if wholly and answers:
            keys = [row["result_key"] for row in answers]
            await self._database.execute(_SQL.drop_results, workspace_id, keys, tx=tx)

    async def _last_step(
        self, workspace_id: UUID, inbox_ids: list[UUID], wholly: bool, tx: Connection
    ) -> None:
        if wholly:
            await self._forget_elsewhere(workspace_id, inbox_ids, inbox_ids, (), None, tx)
            await self._forget_reports(workspace_id, inbox_ids, tx)
            await self._database.execute(_SQL.blank_dead, workspace_id, inbox_ids, tx=tx)
        await delete_of_inboxes(self._database, tx, workspace_id, inbox_ids)
        await self._database.execute(
            _SQL.drop_inboxes, workspace_id, inbox_ids, min(inbox_ids), tx=tx
        )
        await self._forget_cached(workspace_id, inbox_ids, tx)

    async def _forget_elsewhere(
        self,
        workspace_id: UUID,
        purged: Sequence[UUID],
        inbox_ids: Sequence[UUID],
        message_ids: Sequence[UUID],
        kinds: Sequence[str] | None,
        tx: Connection,
    ) -> None:
        """What names `inbox_ids` or `message_ids` and is younger than `purged`, the inboxes; of
        events those of `kinds`."""
        inboxes = [type_id(INBOX, one) for one in inbox_ids]
        messages = [type_id(MESSAGE, one) for one in message_ids]
        began = time_of(min(purged))
        since = lowest_at(began)
        await self._database.execute(
            _SQL.forget_events, workspace_id, inboxes, messages, began, kinds, tx=tx
        )
        await self._database.execute(_SQL.forget_answers, workspace_id, inboxes + messages, tx=tx)
        await self._database.execute(
            _SQL.blank_audit, workspace_id, inboxes + messages, since, tx=tx
        )
        await self._database.execute(
            _SQL.forget_told, workspace_id, inboxes, messages, since, kinds, tx=tx
        )

    async def _forget_reports(
        self, workspace_id: UUID, inbox_ids: Sequence[UUID], tx: Connection
    ) -> None:
        """What was read from reports that came to these inboxes and to no other."""
        gone = 0
        for forget in (_SQL.forget_dmarc, _SQL.forget_tls):
            gone += await self._database.fetchval(forget, workspace_id, inbox_ids, tx=tx)
        if gone and self._cache is not None:
            await self._cache.change(workspace_id, [REPORTS_TAG], tx)

    async def _forget_cached(
        self, workspace_id: UUID, inbox_ids: Sequence[UUID], tx: Connection
    ) -> None:
        if self._cache is not None:
            tags = [tag for one in inbox_ids for tag in tags_of(one)]
            await self._cache.change(workspace_id, tags, tx)


def _job(workspace_id: UUID, inbox_ids: Sequence[UUID]) -> NewJob:
    return NewJob(CLEANUP, PURGE, msgspec.json.encode(inbox_ids), workspace_id)
