"""One cluster of three brokers for the session, and engines on it."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from secrets import token_hex

import pytest
from contract.conftest import Yard, emptied, pytest_configure, shared_database_url
from kafka_cluster import KafkaCluster

from mailyard.bus.adapters.memory import MemoryBus
from mailyard.core.clock import ManualClock
from mailyard.queue.engines.kafka.engine import KafkaEngine
from mailyard.queue.engines.kafka.options import KafkaOptions
from mailyard.queue.engines.kafka.topics import Topics
from mailyard.queue.engines.postgres import PostgresEngine
from mailyard.queue.job import LANES
from mailyard.storage.database import Database

__all__ = ["pytest_configure", "shared_database_url"]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    cluster = KafkaCluster(tmp_path_factory.mktemp("kafka"), 3, small_disk=2)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="module")
def prefix() -> str:
    """What stands before the names of this module's topics."""
    return f"t{token_hex(4)}."


async def make_topics(options: KafkaOptions, partitions: int = 3) -> None:
    await Topics(options).provision(dict.fromkeys(LANES, partitions))


@asynccontextmanager
async def yard_on_kafka(
    database: Database, options: KafkaOptions, *, joins: bool
) -> AsyncIterator[Yard]:
    """Two processes' engines whose every lane is in Kafka, behind what earlier tests left there."""
    clock = ManualClock()
    bus = MemoryBus()

    def engine() -> KafkaEngine:
        return KafkaEngine(
            postgres=PostgresEngine(database=database, bus=bus, clock=clock, upkeep_s=0.0),
            database=database,
            bus=bus,
            options=options,
            lanes=LANES,
            clock=clock,
            every_s=0.0,
            joins=joins,
        )

    first, second = engine(), engine()
    await skip(database, first, options)
    try:
        yield Yard(first, second, clock, bus, database.transaction)
    finally:
        await first.close()
        await second.close()


async def skip(database: Database, engine: KafkaEngine, options: KafkaOptions) -> None:
    """Begin behind everything that lies in the log."""
    async with database.connection() as connection:
        for table in ("kafka_outbox", "kafka_lease", "kafka_cursor"):
            await connection.execute(f"DELETE FROM {table}")
        await connection.execute("UPDATE kafka_drain SET holder = NULL, ids = NULL, parts = NULL")
    topics = [options.topic(lane) for lane in LANES]
    ends = await engine._lag.ends(await engine._lag.cursors(topics))
    async with database.connection() as connection:
        await connection.executemany(
            "UPDATE kafka_cursor SET claimed = $3 WHERE topic = $1 AND part = $2",
            [(topic, part, end) for (topic, part), end in ends.items()],
        )


@pytest.fixture(scope="module")
def options(cluster: KafkaCluster, prefix: str) -> KafkaOptions:
    return KafkaOptions(cluster.servers, prefix, f"{prefix}group")


@pytest.fixture
async def yard(
    options: KafkaOptions, shared_database_url: str, made: set[str]
) -> AsyncIterator[Yard]:
    if options.prefix not in made:
        await make_topics(options)
        made.add(options.prefix)
    async with (
        emptied(shared_database_url) as database,
        yard_on_kafka(database, options, joins=False) as yard,
    ):
        yield yard


@pytest.fixture(scope="session")
def made() -> set[str]:
    """Prefixes whose topics stand."""
    return set()
