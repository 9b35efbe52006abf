"""The job `sweep-blobs`, lane cleanup, every hour: blobs that no row names (any more)."""

from datetime import datetime

from mailyard.queue.batch import Batch, Handler
from mailyard.queue.job import CLEANUP, NewJob
from mailyard.queue.schedule import Every, Schedule
from mailyard.storage.blob_upkeep import BlobUpkeep

SWEEP_BLOBS = "sweep-blobs"
EVERY_S = 3_600


def schedule() -> Schedule:
    """When it runs. One that still waits or runs is not joined by another."""
    return Schedule(SWEEP_BLOBS, Every(EVERY_S), _job)


def _job(_tick: datetime) -> NewJob:
    return NewJob(queue=CLEANUP, kind=SWEEP_BLOBS, payload=b"", unique_key=SWEEP_BLOBS)


def handler(upkeep: BlobUpkeep) -> Handler:
    """What a worker runs."""

    async def handle(batch: Batch) -> None:
        await upkeep.sweep(batch.stopping)

    return Handler(kind=SWEEP_BLOBS, queue=CLEANUP, handle=handle, batch_size=1, concurrency=1)
