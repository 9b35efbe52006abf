"""The queue of a fleet: jobs a second through handlers, with the engine by setting.

    python bench/fleet_queue.py                                  on Kafka, one broker
    MAILYARD_QUEUE_ENGINE=postgres python bench/fleet_queue.py   the same on PostgreSQL

A line is filled with jobs of 1,000 bytes, then worker processes empty it through batch handlers, as
the product does it: claimed, handed over, settled. On Kafka, its own consumer performance tool
reads the same records from the same broker just before: it only counts them. The time is from the
first job to the last, all workers together.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import uvloop
from measure import FULL, Row, fresh_database, median_of, note, postgres, report

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from kafka_cluster import KafkaCluster, folder_of_jars

from mailyard.app.foundation import Foundation, kafka_options
from mailyard.queue.batch import Batch, Handler
from mailyard.queue.engines.kafka.topics import Topics
from mailyard.queue.job import EMAIL_EVENTS, NewJob
from mailyard.queue.worker import Worker
from mailyard.settings import load_settings

JOBS = 1_000_000 if FULL else 200_000
JOB_BYTES = 1_000
ENQUEUED = 2_000  # jobs a call
PARTITIONS = 20
WORKERS = int(os.environ.get("WORKERS", "2"))
BATCH = 500
KAFKA = os.environ.get("MAILYARD_QUEUE_ENGINE", "kafka") == "kafka"


async def fill(jobs: int) -> None:
    """Put `jobs` jobs of many tenants into the line."""
    from uuid import uuid4

    foundation = Foundation(load_settings())
    await foundation.database.open()
    await foundation.bus.open()
    tenants = [uuid4() for _ in range(200)]
    payloads = [os.urandom(JOB_BYTES) for _ in range(ENQUEUED)]
    for start in range(0, jobs, ENQUEUED):
        batch = [
            NewJob(EMAIL_EVENTS, "bench", payload, tenants[(start + n) % len(tenants)])
            for n, payload in enumerate(payloads[: jobs - start])
        ]
        await foundation.engine.enqueue(batch)
    await _close(foundation)


async def work() -> None:
    """Work until the line stays empty; tells when the first and the last job were done."""
    foundation = Foundation(load_settings())
    await foundation.database.open()
    await foundation.bus.open()
    done = 0
    first = last = 0.0

    async def handle(batch: Batch) -> None:
        nonlocal done, first, last
        if not first:
            first = time.time()
        done += len(batch.jobs)
        last = time.time()

    worker = Worker(
        engine=foundation.engine,
        handlers=[Handler("bench", EMAIL_EVENTS, handle, BATCH, 4)],
        name=f"bench-{os.getpid()}",
    )
    running = asyncio.create_task(worker.run())
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    worker.drain()
    await running
    await _close(foundation)
    times = os.times()
    print(json.dumps([done, first, last, times.user + times.system]))


async def _close(foundation: Foundation) -> None:
    for end in reversed(foundation.ends):
        await end()
    await foundation.bus.close()
    await foundation.database.close()


async def emptied(seconds: float) -> None:
    """Until nothing of the line is left."""
    foundation = Foundation(load_settings())
    await foundation.database.open()
    await foundation.bus.open()
    async with asyncio.timeout(seconds):
        while True:
            (depth,) = await foundation.engine.depth([EMAIL_EVENTS])
            if not depth.ready and not depth.leased and not depth.scheduled:
                break
            await asyncio.sleep(0.5)
    await _close(foundation)


def through_handlers() -> float:
    """Jobs a second from the first to the last."""
    workers = [
        subprocess.Popen(
            [sys.executable, __file__, "work"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(WORKERS)
    ]
    uvloop.run(emptied(300))
    answers = []
    for worker in workers:
        out, _ = worker.communicate("end\n", timeout=60)
        answers.append(json.loads(out.splitlines()[-1]))
    done = sum(answer[0] for answer in answers)
    assert done == JOBS, f"{done} of {JOBS} jobs were done"
    first = min(answer[1] for answer in answers if answer[0])
    last = max(answer[2] for answer in answers if answer[0])
    cpu_s = sum(answer[3] for answer in answers)
    note(f"  {WORKERS} workers, {cpu_s / done * 1e6:.1f} us of CPU a job")
    return done / (last - first)


def kafkas_own(servers: str, topic: str) -> float:
    """Records a second of Kafka's consumer performance tool, the group's start not counted."""
    answer = subprocess.run(
        [
            "java",
            "-Xmx256m",
            "-cp",
            f"{folder_of_jars()}/tools/*",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=error",
            "org.apache.kafka.tools.ConsumerPerformance",
            "--bootstrap-server",
            servers,
            "--topic",
            topic,
            "--messages",
            str(JOBS),
            "--timeout",
            "60000",
        ],
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
        check=True,
    )
    names, figures = answer.stdout.strip().splitlines()[-2:]
    found = dict(
        zip(map(str.strip, names.split(",")), map(str.strip, figures.split(",")), strict=True)
    )
    return float(found["fetch.nMsg.sec"])


def child(*arguments: str) -> None:
    subprocess.run([sys.executable, __file__, *arguments], check=True, timeout=300)


async def run(server_url: str, cluster: KafkaCluster | None) -> int:
    async with fresh_database(server_url) as url:
        os.environ["MAILYARD_DATABASE_URL"] = url
        if cluster is None:
            os.environ["MAILYARD_QUEUE_ENGINE"] = "postgres"
            return await asyncio.to_thread(measure, None)
        os.environ["MAILYARD_QUEUE_ENGINE"] = "kafka"
        os.environ["MAILYARD_KAFKA_SERVERS"] = cluster.servers
        os.environ["MAILYARD_KAFKA_LANES"] = EMAIL_EVENTS
        options = kafka_options(load_settings())
        await Topics(options).provision({EMAIL_EVENTS: PARTITIONS})
        return await asyncio.to_thread(measure, cluster)


def measure(cluster: KafkaCluster | None) -> int:
    started = time.perf_counter()
    child("fill", str(JOBS))
    note(f"enqueued {JOBS / (time.perf_counter() - started):,.0f}/s, the start of Python included")
    own = 0.0
    if cluster is not None:
        own = median_of(lambda: kafkas_own(cluster.servers, EMAIL_EVENTS))
    rate = through_handlers()
    note(f"{rate:,.0f} jobs/s, {rate * JOB_BYTES / 1e6:,.1f} MB/s")
    rows = [Row("fleet queue, jobs through handlers", rate, "jobs/s", 30_000)]
    if cluster is not None:
        rows.append(Row("beside 0.3 of kafka-consumer-perf", rate, "jobs/s", 0.3 * own))
    return report(rows)


def main() -> int:
    match sys.argv[1:]:
        case ["fill", jobs]:
            uvloop.run(fill(int(jobs)))
            return 0
        case ["work"]:
            uvloop.run(work())
            return 0
    with postgres() as server_url, tempfile.TemporaryDirectory() as folder:
        if not KAFKA:
            return uvloop.run(run(server_url, None))
        cluster = KafkaCluster(Path(folder), 1)
        try:
            cluster.start()
            return uvloop.run(run(server_url, cluster))
        finally:
            cluster.stop()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started is ended
    sys.exit(main())
