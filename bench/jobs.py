"""The queue on PostgreSQL beside BullMQ on Redis: jobs a second, in and out, in steady state.

500-byte payloads; one process enqueues durably in batches and one works, both as the product does
it; autovacuum is on and a reader holds a snapshot open all the while, so no dead row can go. BullMQ
(addBulk, Worker, its best of several concurrencies and process counts) runs in between, in the same
run, on Debian's redis-server, which keeps its jobs in memory only.

Also printed, without a bar: how long a single job waits from enqueue to its handler.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import asyncpg
import uvloop
from measure import (
    Row,
    fresh_database,
    median_of,
    note,
    percentile,
    postgres,
    redis_server,
    report,
    seconds,
)

from mailyard.bus.adapters.postgres import PostgresBus
from mailyard.queue.batch import Batch, Handler
from mailyard.queue.engines.postgres import PostgresEngine
from mailyard.queue.job import EMAIL_BULK, EMAIL_SEND, NewJob
from mailyard.queue.worker import Worker
from mailyard.storage.database import Database, DatabaseAddress

PEER = Path(__file__).parent / "bullmq"
BACKLOG = 20_000  # the feeder keeps about so many jobs waiting
ENQUEUED = 1_000  # jobs a batch
WARM_S = 2.0
BATCH, SINGLE = 500, 1


async def connect(url: str) -> tuple[Database, PostgresBus, PostgresEngine]:
    database = Database(DatabaseAddress(url, url, connections=6))
    await database.open()
    bus = PostgresBus(database=database)
    await bus.open()
    return database, bus, PostgresEngine(database=database, bus=bus)


async def work(url: str, batch_size: int, measured_s: float) -> float:
    """Jobs a second that one worker process finishes after warming up."""
    database, bus, engine = await connect(url)
    done = 0

    async def handle(batch: Batch) -> None:
        nonlocal done
        done += len(batch.jobs)

    concurrency = 10 if batch_size == SINGLE else 4
    handler = Handler("bench", EMAIL_BULK, handle, batch_size, concurrency)
    worker = Worker(engine=engine, handlers=[handler], name="bench")
    running = asyncio.create_task(worker.run())
    await asyncio.sleep(WARM_S)
    before, started = done, time.perf_counter()
    await asyncio.sleep(measured_s)
    rate = (done - before) / (time.perf_counter() - started)
    worker.drain()
    await running
    await bus.close()
    await database.close()
    return rate


async def feed(url: str) -> None:
    """Keep the line filled until killed."""
    _, _, engine = await connect(url)
    jobs = [NewJob(EMAIL_BULK, "bench", os.urandom(500)) for _ in range(ENQUEUED)]
    while True:
        (depth,) = await engine.depth([EMAIL_BULK])
        if depth.ready < BACKLOG:
            await asyncio.gather(engine.enqueue(jobs), engine.enqueue(jobs))
        else:
            await asyncio.sleep(0.002)


async def wait_times(url: str, count: int) -> list[float]:
    """Seconds from enqueue to the handler, one job at a time into an idle queue."""
    database, bus, engine = await connect(url)
    arrived: asyncio.Queue[float] = asyncio.Queue()

    async def handle(_batch: Batch) -> None:
        arrived.put_nowait(time.perf_counter())

    worker = Worker(engine=engine, handlers=[Handler("bench", EMAIL_SEND, handle)], name="bench")
    running = asyncio.create_task(worker.run())
    waits = []
    for _ in range(count):
        await asyncio.sleep(0.02)
        started = time.perf_counter()
        await engine.enqueue([NewJob(EMAIL_SEND, "bench", b"x")])
        waits.append(await arrived.get() - started)
    worker.drain()
    await running
    await bus.close()
    await database.close()
    return waits


def child(*arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True
    )


def measure_ours(url: str, batch_size: int, measured_s: float) -> float:
    feeder = child("feed", url)
    try:
        worker = child("work", url, str(batch_size), str(measured_s))
        answer, _ = worker.communicate(timeout=measured_s + 60)
        *log, figure = answer.splitlines()
        for line in log:
            note(line)
        return float(json.loads(figure))
    finally:
        feeder.kill()
        feeder.wait()


def measure_peer(port: int, concurrency: int, processes: int, measured_s: float) -> float:
    running = [
        subprocess.Popen(
            ["node", "bench.js", str(port), str(concurrency), str(measured_s)],
            cwd=PEER,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(processes)
    ]
    answers = [each.communicate(timeout=measured_s + 60)[0] for each in running]
    return sum(float(answer) for answer in answers)


def peers_best(port: int) -> tuple[int, int]:
    """(concurrency, processes) at which BullMQ is fastest here."""
    tried = {
        (concurrency, processes): measure_peer(port, concurrency, processes, 1.5)
        for concurrency in (50, 200)
        for processes in (1, 2)
    }
    best = max(tried, key=lambda each: tried[each])
    note(f"BullMQ is fastest with concurrency {best[0]} in {best[1]} process(es)")
    return best


def install_peer() -> None:
    if not (PEER / "node_modules").exists():
        note("installing BullMQ")
        subprocess.run(
            ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"],
            cwd=PEER,
            check=True,
            stdout=subprocess.DEVNULL,
        )


async def run(server_url: str, redis_port: int) -> int:
    measured_s = seconds(20.0, 60.0)
    concurrency, processes = await asyncio.to_thread(peers_best, redis_port)
    peer: list[float] = []
    batched: list[float] = []
    single: list[float] = []
    async with fresh_database(server_url) as url:
        reader = await asyncpg.connect(url)
        snapshot = reader.transaction(isolation="repeatable_read")
        await snapshot.start()
        await reader.fetchval("SELECT count(*) FROM job")
        for _ in range(3):
            peer.append(
                await asyncio.to_thread(
                    measure_peer, redis_port, concurrency, processes, measured_s
                )
            )
            batched.append(await asyncio.to_thread(measure_ours, url, BATCH, measured_s))
            single.append(await asyncio.to_thread(measure_ours, url, SINGLE, measured_s))
            note(
                f"  BullMQ {peer[-1]:,.0f}/s, batches {batched[-1]:,.0f}/s, "
                f"single jobs {single[-1]:,.0f}/s"
            )
        await snapshot.rollback()
        await reader.close()
        waits = await wait_times(url, 200)
    peer_rate = median_of(iter(peer).__next__)
    note(
        f"enqueue to handler, idle queue: median {percentile(waits, 0.5) * 1000:.1f} ms, "
        f"p99 {percentile(waits, 0.99) * 1000:.1f} ms"
    )
    return report(
        [
            Row(
                "queue, batch handlers, beside 2x BullMQ",
                median_of(iter(batched).__next__),
                "jobs/s",
                2 * peer_rate,
            ),
            Row(
                "queue, single-job handlers",
                median_of(iter(single).__next__),
                "jobs/s",
                20_000,
            ),
        ]
    )


def main() -> int:
    match sys.argv[1:]:
        case ["feed", url]:
            uvloop.run(feed(url))
            return 0
        case ["work", url, batch_size, measured_s]:
            print(json.dumps(uvloop.run(work(url, int(batch_size), float(measured_s)))))
            return 0
    install_peer()
    with postgres() as server_url, redis_server() as redis_port:
        return uvloop.run(run(server_url, redis_port))


if __name__ == "__main__":
    sys.exit(main())
