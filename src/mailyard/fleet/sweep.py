"""The job `sweep`, lane cleanup, once a minute: rows that have run out and lie in no partition.

The scheduler only says when; a worker does it, so that the leader's own duties never wait for it.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime

from mailyard.queue.job import CLEANUP, NewJob
from mailyard.queue.schedule import Every, Schedule
from mailyard.queue.worker import Batch, Handler
from mailyard.storage.database import Database
from mailyard.storage.queries import load

QUERIES = load("expiry")
SWEEP = "sweep"
EVERY_S = 60
ROWS = 5_000  # a statement: short transactions, short locks

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
