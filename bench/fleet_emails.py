"""Transactional mail from `POST /v1/emails` to the SMTP answer, over Kafka and as embedded.

Each run starts what the product runs: PostgreSQL, one API process, two workers (on Kafka: one
broker beside them), and Postfix's smtp-sink that takes the mail. 64 connections post for some
seconds; the rate is that of all mails from the first request until the last was taken by the sink
and written down. Both kinds run by turns on the same two cores: the broker takes from what Kafka's
runs have.
"""

import asyncio
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import asyncpg
from campaign import sink
from emails import BODY, Api, load, mailyard_api
from measure import Row, free_port, note, report, seconds, wait_for_port
from platform_parts import cpu_seconds, product_postgres

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from kafka_cluster import KafkaCluster

Costs = Callable[[], dict[str, float]]  # CPU seconds used so far

SECONDS = float(os.environ.get("SECONDS", seconds(5.0, 20.0)))
RUNS = int(os.environ.get("RUNS", seconds(2, 3)))
ENGINES = os.environ.get("ENGINES", "postgres,kafka").split(",")
WORKERS = 2
SETTLED_S = 60.0
ACCEPT_P95_MS = 100.0


@contextmanager
def settings(**values: str) -> Iterator[None]:
    """Settings of the processes that are started within."""
    before = dict(os.environ)
    os.environ.update({f"MAILYARD_{name.upper()}": value for name, value in values.items()})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def workers(url: str) -> Iterator[list[int]]:
    """The role `worker`, as its command starts it; the processes' ids."""
    command = str(Path(sys.executable).with_name("mailyard"))
    environment = {**os.environ, "MAILYARD_DATABASE_URL": url}
    running = [
        subprocess.Popen([command, "worker"], env=environment, stdout=subprocess.DEVNULL)
        for _ in range(WORKERS)
    ]
    try:
        yield [one.pid for one in running]
    finally:
        for one in running:
            one.terminate()
        for one in running:
            one.wait(60)


async def taken(url: str, wanted: int) -> None:
    """Until so many deliveries were accepted by the sink."""
    connection = await asyncpg.connect(url)
    try:
        async with asyncio.timeout(SETTLED_S):
            while True:
                there = await connection.fetchval(
                    "SELECT count(*) FROM delivery WHERE state = 'accepted'"
                )
                if there >= wanted:
                    return
                await asyncio.sleep(0.2)
    finally:
        await connection.close()


def measure(api: Api, url: str, costs: Costs) -> tuple[float, float]:
    """(mails a second to the sink's answer, p95 of accepting in milliseconds)."""
    load(api.port, api.key, "/v1/emails", BODY, 0.5, 50.0)  # warm: every process has worked once
    warm = asyncio.run(count(url))
    asyncio.run(taken(url, warm))
    before, started = costs(), time.perf_counter()
    run = load(api.port, api.key, "/v1/emails", BODY, SECONDS, None)
    asyncio.run(taken(url, asyncio.run(count(url))))
    passed = time.perf_counter() - started
    used = {name: cpu_s - before[name] for name, cpu_s in costs().items()}
    each = ", ".join(f"{name} {1e6 * cpu_s / run.answers:.0f}" for name, cpu_s in used.items())
    all_us = 1e6 * sum(used.values()) / run.answers
    note(f"  microseconds of CPU a mail: {each}; together {all_us:.0f}")
    return run.answers / passed, run.percentile(0.95)


async def count(url: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        there: int = await connection.fetchval("SELECT count(*) FROM delivery")
        return there
    finally:
        await connection.close()


def one_run(engine: str) -> tuple[float, float]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mailyard-bench-")))
        folder.chmod(0o755)
        server = stack.enter_context(product_postgres(folder))
        port = free_port()
        stack.enter_context(sink(port))
        wait_for_port(port)
        chosen = {"relay_url": f"smtp://127.0.0.1:{port}", "relay_tls": "none"}
        cluster = None
        if engine == "kafka":
            cluster = KafkaCluster(folder / "kafka", 1)
            stack.callback(cluster.stop)
            cluster.start()
            chosen |= {"queue_engine": "kafka", "kafka_servers": cluster.servers}
        stack.enter_context(settings(**chosen))
        if engine == "kafka":
            command = str(Path(sys.executable).with_name("mailyard"))
            subprocess.run([command, "queue", "provision"], check=True, stdout=subprocess.DEVNULL)
        api = stack.enter_context(mailyard_api(server.url))
        works = stack.enter_context(workers(server.url))

        def costs() -> dict[str, float]:
            used = {
                "API": cpu_seconds(api.pid),
                "workers": sum(map(cpu_seconds, works)),
                "PostgreSQL": sum(map(cpu_seconds, server.process_ids())),
            }
            if cluster is not None:
                used["broker"] = sum(map(cpu_seconds, cluster.process_ids()))
            return used

        rate, p95_ms = measure(api, server.url, costs)
        note(f"  {engine}: {rate:,.0f}/s to the answer, accept p95 {p95_ms:.1f} ms")
        return rate, p95_ms


def main() -> int:
    found: dict[str, list[tuple[float, float]]] = {engine: [] for engine in ENGINES}
    for _ in range(RUNS):
        for engine, runs in found.items():
            runs.append(one_run(engine))
    if len(found) < 2:
        return 0  # one of them was asked for, to look at
    rates = {engine: statistics.median(rate for rate, _ in runs) for engine, runs in found.items()}
    p95_ms = statistics.median(p95 for _, p95 in found["kafka"])
    return report(
        [
            Row(
                "POST /v1/emails to SMTP answer, Kafka's share of the embedded",
                rates["kafka"] / rates["postgres"],
                "",
                0.5,
            ),
            Row(
                "accepting over Kafka, p95 at full speed",
                p95_ms,
                "ms",
                ACCEPT_P95_MS,
                less_is_better=True,
            ),
        ]
    )


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started is ended
    sys.exit(main())
