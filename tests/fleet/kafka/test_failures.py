"""What dies under load: brokers, the controller, workers while the group deals anew, a disk.

Every number that was accepted stands in the ledger in the end, once.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from secrets import token_hex

import pytest
from kafka_cluster import KafkaCluster

from mailyard.bus.adapters.postgres import PostgresBus
from mailyard.core.errors import MailyardError
from mailyard.queue.engines.kafka.engine import KafkaEngine
from mailyard.queue.engines.kafka.options import KafkaOptions
from mailyard.queue.engines.kafka.topics import Topics
from mailyard.queue.engines.postgres import PostgresEngine
from mailyard.queue.job import EMAIL_EVENTS, EMAIL_SEND, NewJob
from mailyard.storage.database import Database

WORKER = Path(__file__).parent / "ledger_worker.py"
LANES = (EMAIL_SEND, EMAIL_EVENTS)
AT_ONCE = 40
A_MINUTE_S = 60.0
SETTLED_S = 240.0  # a killed worker's leases run out after 20 s


class World:
    """A feeder, workers in processes of their own, and the ledger between them."""

    def __init__(self, database: Database, engine: KafkaEngine, arguments: list[str]) -> None:
        self.database = database
        self.engine = engine
        self.accepted: set[int] = set()
        self.refused = 0
        self.workers: list[subprocess.Popen[bytes]] = []
        self._arguments = arguments
        self._next = 0
        self._feeding: asyncio.Task[None] | None = None

    def hire(self) -> "subprocess.Popen[bytes]":
        """Start a worker; back when it has begun."""
        worker = subprocess.Popen(
            [sys.executable, str(WORKER), *self._arguments], stdout=subprocess.PIPE
        )
        assert worker.stdout is not None and worker.stdout.readline() == b"ready\n"
        self.workers.append(worker)
        return worker

    def feed(self) -> None:
        """Enqueue from now on: by turns in a transaction and straight into the log."""
        self._feeding = asyncio.create_task(self._feed())

    async def stop_feeding(self) -> None:
        assert self._feeding is not None
        self._feeding.cancel()
        await asyncio.gather(self._feeding, return_exceptions=True)

    async def _feed(self) -> None:
        while True:
            numbers = range(self._next, self._next + AT_ONCE)
            self._next += AT_ONCE
            lane = LANES[(self._next // AT_ONCE) % 2]
            jobs = [NewJob(lane, "ledger", str(number).encode()) for number in numbers]
            try:
                if self._next // AT_ONCE % 4 < 2:
                    async with self.database.transaction() as tx:
                        await self.engine.enqueue(jobs, tx)
                else:
                    await self.engine.enqueue(jobs)
            except MailyardError:
                self.refused += AT_ONCE  # the caller was told: it may be done, it need not
            else:
                self.accepted.update(numbers)
            await asyncio.sleep(0.01)

    async def until_accepted(self, more: int) -> None:
        """So many more are accepted."""
        wanted = len(self.accepted) + more
        async with asyncio.timeout(SETTLED_S):
            while len(self.accepted) < wanted:
                await asyncio.sleep(0.05)

    async def done(self) -> Counter[int]:
        async with self.database.connection() as connection:
            rows = await connection.fetch("SELECT number FROM ledger")
        return Counter(row["number"] for row in rows)

    async def settle(self) -> None:
        """Feed no more; everything accepted is done, once each."""
        await self.stop_feeding()
        missing = set(self.accepted)
        try:
            async with asyncio.timeout(SETTLED_S):
                while missing:
                    missing = self.accepted - (await self.done()).keys()
                    await asyncio.sleep(0.25)
        except TimeoutError:
            pytest.fail(f"{len(missing)} of {len(self.accepted)} accepted were not done")
        done = await self.done()
        assert {number for number, times in done.items() if times > 1} == set()


@pytest.fixture
async def world(
    cluster: KafkaCluster, database: Database, database_url: str, protocol: str
) -> AsyncIterator[World]:
    async with a_world(cluster, database, database_url, protocol) as world:
        yield world


@pytest.fixture
def protocol() -> str:
    return "classic"


@asynccontextmanager
async def a_world(
    cluster: KafkaCluster, database: Database, database_url: str, protocol: str
) -> AsyncIterator[World]:
    prefix = f"f{token_hex(4)}."
    options = KafkaOptions(cluster.servers, prefix, f"{prefix}group", protocol)
    await Topics(options).provision(dict.fromkeys(LANES, 6))
    async with database.connection() as connection:
        await connection.execute("CREATE TABLE ledger (number integer, worker integer)")
    bus = PostgresBus(database=database)
    await bus.open()
    engine = KafkaEngine(
        postgres=PostgresEngine(database=database, bus=bus),
        database=database,
        bus=bus,
        options=options,
        lanes=LANES,
    )
    world = World(database, engine, [database_url, cluster.servers, prefix, protocol])
    try:
        yield world
    finally:
        for worker in world.workers:
            worker.kill()
            worker.wait()
        await engine.close()
        await bus.close()


@pytest.fixture(autouse=True)
def whole(cluster: KafkaCluster) -> Iterator[None]:
    """Every test finds all brokers, and leaves them."""
    yield
    for node in cluster.nodes:
        if not cluster.runs(node):
            cluster.start_node(node)
    cluster.wait_for(set(cluster.nodes))


def another(cluster: KafkaCluster) -> int:
    """A broker that does not lead the controllers."""
    leader = cluster.controller()
    return next(node for node in cluster.nodes if node != leader)


@pytest.mark.parametrize("which", ["a broker", "the controller"])
async def test_nothing_accepted_is_lost_when_a_broker_is_killed(
    world: World, cluster: KafkaCluster, which: str
) -> None:
    world.hire()
    world.hire()
    world.feed()
    await world.until_accepted(1_000)
    node = another(cluster) if which == "a broker" else cluster.controller()
    cluster.kill(node)
    await world.until_accepted(2_000)
    cluster.start_node(node)
    await world.until_accepted(1_000)
    await world.settle()


async def test_nothing_accepted_is_lost_when_a_broker_stands_still_for_a_minute(
    world: World, cluster: KafkaCluster
) -> None:
    world.hire()
    world.feed()
    await world.until_accepted(500)
    node = another(cluster)
    cluster.pause(node)  # no connection closes: time-outs alone tell
    try:
        await asyncio.sleep(A_MINUTE_S)
    finally:
        cluster.go_on(node)
    await world.until_accepted(500)
    await world.settle()


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
async def test_nothing_accepted_is_lost_when_workers_die_while_the_group_deals_anew(
    world: World, protocol: str
) -> None:
    first = world.hire()
    world.hire()
    world.feed()
    await world.until_accepted(1_000)
    world.hire()  # the group begins to deal
    first.kill()  # and one of those it deals to is gone
    await world.until_accepted(500)
    world.workers[1].send_signal(signal.SIGSTOP)  # one stands still with its leases
    world.hire()
    await world.until_accepted(1_000)
    await asyncio.sleep(22)  # its leases run out and go to others
    world.workers[1].send_signal(signal.SIGCONT)  # it wakes up and finds them gone
    await world.settle()


async def test_nothing_accepted_is_lost_when_all_brokers_are_away(
    world: World, cluster: KafkaCluster
) -> None:
    world.hire()
    world.feed()
    await world.until_accepted(500)
    for node in cluster.nodes:
        cluster.kill(node)
    await world.until_accepted(500)  # what comes with a transaction waits in the outbox
    for node in cluster.nodes:
        cluster.start_node(node)
    cluster.wait_for(set(cluster.nodes))
    await world.until_accepted(500)
    await world.settle()


async def test_nothing_accepted_is_lost_when_a_brokers_disk_is_full(
    world: World, cluster: KafkaCluster
) -> None:
    node = cluster.small_disk
    if node is None:
        missing = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        missing("no small file system could be mounted here")
    world.hire()
    world.feed()
    await world.until_accepted(500)
    stuffing = cluster.data(node).parent / "stuffing"
    with stuffing.open("wb") as file:
        try:
            while True:
                file.write(bytes(1024 * 1024))
                file.flush()
        except OSError:
            pass
    async with asyncio.timeout(SETTLED_S):
        while cluster.runs(node):  # it ends by itself, for it can keep no promise
            await asyncio.sleep(0.1)
    await world.until_accepted(1_000)
    stuffing.unlink()
    cluster.start_node(node)
    await world.until_accepted(500)
    await world.settle()
