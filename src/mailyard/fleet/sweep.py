"""The job `sweep`, lane cleanup, once a minute: rows that have run out and lie in no partition.

The scheduler only says when; a worker does it, so that the leader's own duties never wait for it.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from uuid import UUID

from mailyard.queue.batch import Batch, Handler
from mailyard.queue.job import CLEANUP, NewJob
from mailyard.queue.schedule import Every, Schedule
from mailyard.storage.database import Connection, Database
from mailyard.storage.derived import delete_of_lines, delete_of_messages
from mailyard.storage.partitions import RETENTION_DAYS
from mailyard.storage.queries import Query, load

QUERIES = load("expiry")
SWEEP = "sweep"
EVERY_S = 60
ROWS = 5_000  # a statement: short transactions, short locks
LINES = 1_000  # with what is derived from them
DELETED_KEPT_S = 3_600.0  # for whoever looks at it this moment

Sweep = Callable[[], Awaitable[object]]


def schedule() -> Schedule:
    """When it runs. A sweep that still waits or runs is not joined by another."""
    return Schedule(SWEEP, Every(EVERY_S), _job)


def _job(_tick: datetime) -> NewJob:
    return NewJob(queue=CLEANUP, kind=SWEEP, payload=b"", unique_key=SWEEP)


def handler(sweeps: Sequence[Sweep]) -> Handler:
    """What a worker runs: each of `sweeps`, which each room knows for itself."""

    async def handle(batch: Batch) -> None:
        for sweep in sweeps:
            if batch.stopping.is_set():
                return  # the next minute's sweep finds the rest
            await sweep()

    return Handler(kind=SWEEP, queue=CLEANUP, handle=handle, batch_size=1, concurrency=1)


def free_addresses(database: Database) -> Sweep:
    """Addresses of expired inboxes may be taken again."""

    async def free() -> None:
        while True:
            tag = await database.execute(QUERIES.expired_addresses, ROWS)
            if int(tag.rsplit(" ", 1)[-1]) < ROWS:
                return

    return free


def drop_lines(database: Database) -> Sweep:
    """Lines whose message is gone before their inbox, with all that is derived from them: of mail
    that ends before its inbox (its bytes have left with their partition), and of deleted mail."""

    async def drop() -> None:
        for days in filter(None, RETENTION_DAYS):
            while await _drop(database, QUERIES.outlived_lines, days) == LINES:
                pass
        while await _drop(database, QUERIES.deleted_lines, DELETED_KEPT_S) == LINES:
            pass

    return drop


async def _drop(database: Database, query: Query, argument: float) -> int:
    rows = await database.fetch(query, argument, LINES)
    by_workspace: dict[UUID, list[tuple[UUID, UUID]]] = {}
    for row in rows:
        lines = by_workspace.setdefault(row["workspace_id"], [])
        lines.append((row["inbox_id"], row["message_id"]))
    for workspace_id, lines in by_workspace.items():
        inbox_ids, message_ids = map(list, zip(*lines, strict=True))
        async with database.transaction() as tx:
            await delete_of_lines(database, tx, workspace_id, inbox_ids, message_ids)
            await database.execute(
                QUERIES.drop_lines,
                workspace_id,
                inbox_ids,
                message_ids,
                min(message_ids),
                max(message_ids),
                tx=tx,
            )
            await _drop_derived(database, tx, workspace_id, message_ids)
    return len(rows)


async def _drop_derived(
    database: Database, tx: Connection, workspace_id: UUID, message_ids: Sequence[UUID]
) -> None:
    """What is kept about those of the messages that are stored no more."""
    wanted = list(dict.fromkeys(message_ids))
    rows = await database.fetch(
        QUERIES.unstored, workspace_id, wanted, min(wanted), max(wanted), tx=tx
    )
    if rows:
        await delete_of_messages(database, tx, workspace_id, [row["id"] for row in rows])
