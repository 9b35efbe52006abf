"""A worker process whose handler writes what it has done into a ledger, with the completion.

    python ledger_worker.py DATABASE_URL SERVERS PREFIX PROTOCOL

Runs until SIGTERM, then drains. The ledger's row commits with the completion of its job, so a job
that stands there twice was given out twice and taken twice: the fence failed.
"""

import asyncio
import os
import signal
import sys

import uvloop

from mailyard.bus.adapters.postgres import PostgresBus
from mailyard.queue.batch import Batch, Handler
from mailyard.queue.engines.kafka.engine import KafkaEngine
from mailyard.queue.engines.kafka.options import KafkaOptions
from mailyard.queue.engines.postgres import PostgresEngine
from mailyard.queue.job import EMAIL_EVENTS, EMAIL_SEND
from mailyard.queue.worker import Worker
from mailyard.storage.database import Database, DatabaseAddress

KIND = "ledger"
LANES = (EMAIL_SEND, EMAIL_EVENTS)
_WORK_S = 0.02


class Undone(Exception):
    """The lease is another's: nothing of this batch is to be written."""


async def run(url: str, servers: str, prefix: str, protocol: str) -> None:
    database = Database(DatabaseAddress(url, url, connections=6))
    await database.open()
    bus = PostgresBus(database=database)
    await bus.open()
    engine = KafkaEngine(
        postgres=PostgresEngine(database=database, bus=bus),
        database=database,
        bus=bus,
        options=KafkaOptions(servers, prefix, f"{prefix}group", protocol),
        lanes=LANES,
    )

    async def handle(batch: Batch) -> None:
        await asyncio.sleep(_WORK_S)
        try:
            async with database.transaction() as tx:
                if await batch.complete(batch.jobs, tx) != {job.id for job in batch.jobs}:
                    raise Undone
                await tx.executemany(
                    "INSERT INTO ledger (number, worker) VALUES ($1, $2)",
                    [(int(job.payload), os.getpid()) for job in batch.jobs],
                )
        except Undone:
            return

    handlers = [Handler(KIND, lane, handle, batch_size=50, concurrency=4) for lane in LANES]
    worker = Worker(engine=engine, handlers=handlers, name=f"ledger-{os.getpid()}")
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.drain)
    print("ready", flush=True)
    await worker.run()
    await engine.close()
    await bus.close()
    await database.close()


if __name__ == "__main__":
    uvloop.run(run(*sys.argv[1:5]))
