"""A campaign on Kafka, Redis and S3, and as embedded.

Each run starts what the product runs: PostgreSQL, two workers as their command starts them, and
Postfix's smtp-sink that takes the mail; a fleet's run has a Kafka broker, a Redis and an S3 server
beside them, named by settings. The campaign is that of bench/campaign.py; its rate is from `start`
until the last recipient is recorded. Both kinds run by turns on the same two cores: the three
services take from what the fleet's runs have. Of the chunks of a fleet's run it is seen that they
went through Kafka.
"""

import asyncio
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from campaign import send, sink
from fleet_emails import settings, workers
from measure import FULL, Row, free_port, note, report, wait_for_port
from platform_parts import Parts, cpu_seconds, product_postgres

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import redis_servers
from kafka_cluster import KafkaCluster
from s3_server import S3Server, is_installed

from mailyard.core.limits import CAMPAIGN_CHUNK_RECIPIENTS
from mailyard.queue.job import EMAIL_BULK

RECIPIENTS = int(os.environ.get("RECIPIENTS", 500_000 if FULL else 100_000))
WARM = 4_000  # a campaign before the measured one: every process has worked once
RUNS = int(os.environ.get("RUNS", 3))
KINDS = os.environ.get("KINDS", "embedded,fleet").split(",")
BAR = 0.7

Costs = Callable[[], dict[str, float]]  # CPU seconds used so far


def fleet(stack: ExitStack, folder: Path) -> tuple[dict[str, str], dict[str, list[int]]]:
    """Kafka, Redis and S3 until the stack ends: their settings, and their processes by name."""
    brokers = KafkaCluster(folder / "kafka", 1)
    stack.callback(brokers.stop)
    brokers.start()
    redis = stack.enter_context(redis_servers.single(folder / "redis"))
    if not is_installed():
        raise SystemExit("versitygw is missing: run tests/services/install_s3.sh")
    store = S3Server(folder / "s3")
    stack.callback(store.stop)
    store.start()
    chosen = {
        "queue_engine": "kafka",
        "kafka_servers": brokers.servers,
        "redis_url": f"redis://127.0.0.1:{redis.port}/0",
        "blobs": store.url("bench"),
    }
    assert redis.process is not None
    return chosen, {"broker": brokers.process_ids(), "Redis": [redis.process.pid]}


async def through_kafka(servers: str) -> int:
    """How many jobs of the lane the log has ever had."""
    from confluent_kafka import Consumer, TopicPartition

    def ask() -> int:
        consumer = Consumer({"bootstrap.servers": servers, "group.id": "bench"})
        try:
            topic = consumer.list_topics(EMAIL_BULK, timeout=10).topics[EMAIL_BULK]
            parts = [TopicPartition(EMAIL_BULK, number) for number in topic.partitions]
            return sum(consumer.get_watermark_offsets(part, timeout=10)[1] for part in parts)
        finally:
            consumer.close()

    return await asyncio.to_thread(ask)


async def campaign(url: str, count: int) -> float:
    """Recipients a second."""
    parts = Parts(url, connections=4)
    await parts.open()
    try:
        return await send(parts, count)
    finally:
        await parts.close()


def measure(url: str, costs: Costs) -> float:
    asyncio.run(campaign(url, WARM))
    before = costs()
    rate = asyncio.run(campaign(url, RECIPIENTS))
    used = {name: cpu_s - before[name] for name, cpu_s in costs().items()}
    each = ", ".join(f"{name} {1e6 * cpu_s / RECIPIENTS:.1f}" for name, cpu_s in used.items())
    together = 1e6 * sum(used.values()) / RECIPIENTS
    note(f"  microseconds of CPU a recipient: {each}; together {together:.1f}")
    return rate


def one_run(kind: str) -> float:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mailyard-bench-")))
        folder.chmod(0o755)
        server = stack.enter_context(product_postgres(folder))
        port = free_port()
        taker = stack.enter_context(sink(port))
        wait_for_port(port)
        chosen = {"relay_url": f"smtp://127.0.0.1:{port}", "relay_tls": "none"}
        processes: dict[str, list[int]] = {}
        if kind == "fleet":
            more, processes = fleet(stack, folder)
            chosen |= more
        stack.enter_context(settings(**chosen))
        if kind == "fleet":
            command = str(Path(sys.executable).with_name("mailyard"))
            subprocess.run([command, "queue", "provision"], check=True, stdout=subprocess.DEVNULL)
        works = stack.enter_context(workers(server.url))

        def costs() -> dict[str, float]:
            groups = {
                "workers": works,
                "PostgreSQL": server.process_ids(),
                "smtp-sink": [taker.pid],
                **processes,
            }
            return {name: sum(map(cpu_seconds, pids)) for name, pids in groups.items()}

        rate = measure(server.url, costs)
        note(f"  {kind}: {rate:,.0f} recipients a second")
        if kind == "fleet":
            travelled = asyncio.run(through_kafka(chosen["kafka_servers"]))
            wanted = (RECIPIENTS + WARM) // CAMPAIGN_CHUNK_RECIPIENTS
            if travelled < wanted:
                raise SystemExit(f"{travelled} of {wanted} chunks went through Kafka")
        return rate


def main() -> int:
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(RUNS):
        for kind, rates in found.items():
            rates.append(one_run(kind))
    if len(found) < 2:
        return 0  # one of them was asked for, to look at
    share = statistics.median(found["fleet"]) / statistics.median(found["embedded"])
    return report([Row("campaign on Kafka, Redis and S3: share of the embedded", share, "", BAR)])


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started is ended
    sys.exit(main())
