"""How far things are done, as Kafka's own tools see it; and what travels by the log."""

import asyncio
from collections.abc import AsyncIterator
from secrets import token_hex
from uuid import uuid4

import pytest
from contract.conftest import Yard
from contract.queue_words import Q, counts, ids, job, payloads, take
from kafka_cluster import KafkaCluster

from mailyard.bus.adapters.memory import MemoryBus
from mailyard.core.errors import ConfigurationError
from mailyard.queue.engines.kafka import lag as lag_module
from mailyard.queue.engines.kafka import marking
from mailyard.queue.engines.kafka.claiming import LoggedJob
from mailyard.queue.engines.kafka.engine import KafkaEngine
from mailyard.queue.engines.kafka.options import KafkaOptions, library
from mailyard.queue.engines.kafka.placing import key_of, spread_of
from mailyard.queue.engines.kafka.topics import Topics
from mailyard.queue.engines.postgres import PostgresEngine
from mailyard.queue.job import EMAIL_BULK, EMAIL_SEND, LeasedJob, NewJob
from mailyard.storage.database import Database

LEASE_S = 3.0
PATIENCE_S = 120.0


class Group:
    """Processes on one partition, and what the group is told of it."""

    def __init__(self, database: Database, options: KafkaOptions) -> None:
        self._database = database
        self._bus = MemoryBus()
        self.options = options
        self.engines: list[KafkaEngine] = []

    def engine(self) -> KafkaEngine:
        engine = KafkaEngine(
            postgres=PostgresEngine(database=self._database, bus=self._bus),
            database=self._database,
            bus=self._bus,
            options=self.options,
            lanes=(EMAIL_SEND,),
        )
        self.engines.append(engine)
        return engine

    async def committed(self) -> int:
        """The offset that the group's next member would begin at."""
        kafka = library("confluent_kafka")
        consumer = kafka.Consumer(self.options.client() | {"group.id": self.options.group})
        try:
            part = kafka.TopicPartition(self.options.topic(EMAIL_SEND), 0)
            (found,) = await asyncio.to_thread(consumer.committed, [part], 10)
            return max(0, int(found.offset))
        finally:
            consumer.close()

    async def begins(self, engine: KafkaEngine) -> int:
        """The first offset that the log still has."""
        place = (self.options.topic(EMAIL_SEND), 0)
        return (await engine._lag.begins([place]))[place]

    async def reach(self, wanted: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while await self.committed() != wanted:
                await asyncio.sleep(0.05)


@pytest.fixture
async def group(
    cluster: KafkaCluster, database: Database, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Group]:
    monkeypatch.setattr(marking, "COMMIT_EVERY_S", 0.1)
    monkeypatch.setattr(lag_module, "CUT_EVERY_S", 0.1)
    monkeypatch.setattr("mailyard.queue.engines.kafka.claiming.LEASE_S", LEASE_S)
    prefix = f"m{token_hex(4)}."
    options = KafkaOptions(cluster.servers, prefix, f"{prefix}group")
    await Topics(options).provision({EMAIL_SEND: 1})
    group = Group(database, options)
    yield group
    for engine in group.engines:
        await engine.close()


async def gather(engine: KafkaEngine, count: int) -> list[LeasedJob]:
    found: list[LeasedJob] = []
    async with asyncio.timeout(PATIENCE_S):
        while len(found) < count:
            found += await engine.lease([Q], count - len(found), 1.0, "w")
    return found


async def test_offsets_are_committed_below_the_first_job_that_is_not_done(group: Group) -> None:
    engine = group.engine()
    await engine.enqueue([job(str(number)) for number in range(10)])
    held = {one.payload.decode(): one for one in await gather(engine, 10)}
    await engine.complete([held[name] for name in "013489"])
    await group.reach(2)  # 3 and 4 are done as well, and there is a gap before them
    await engine.complete([held["2"]])
    await group.reach(5)
    await engine.complete([held[name] for name in "567"])
    await group.reach(10)
    async with asyncio.timeout(PATIENCE_S):
        while await group.begins(engine) < 10:  # what is done is cut off the log
            await asyncio.sleep(0.05)


async def test_after_a_death_just_what_was_not_done_is_given_out_from_the_mark_on(
    group: Group,
) -> None:
    dead = group.engine()
    await dead.enqueue([job(str(number)) for number in range(10)])
    held = {one.payload.decode(): one for one in await gather(dead, 8)}
    await dead.complete([held[name] for name in "01457"])
    await group.reach(2)
    await dead.close()  # and nobody prolongs what it held: 2, 3 and 6
    other = group.engine()
    fresh = await gather(other, 2)
    assert payloads(fresh) == ["8", "9"]
    await other.complete(fresh)
    assert await group.committed() == 2, "the mark does not pass what a dead worker held"
    assert await group.begins(other) == 2, "and the log still has it"
    await asyncio.sleep(LEASE_S)
    assert await other.rescue() == 3
    again: list[LeasedJob] = []
    async with asyncio.timeout(PATIENCE_S):
        while len(again) < 3:
            again += [one for one in await other.lease([Q], 1, 1.0, "w") if one.crashes == 1]
    assert sorted(payloads(again)) == ["2", "3", "6"]
    assert await dead.complete([held["2"]]) == set(), "the dead worker's fence is void"
    await other.complete(again)
    await group.reach(10)


async def test_who_has_nothing_to_do_shares_a_partition_whose_member_has_slow_jobs(
    group: Group,
) -> None:
    """As with a campaign's chunks: few jobs, long ones, all of one tenant on one partition."""
    member, idle = group.engine(), group.engine()
    await member.enqueue([job(str(number)) for number in range(40)])
    first = await gather(member, 1)  # the partition is dealt, and this one moves its cursor on
    slow: list[LeasedJob] = list(first)
    helped: list[LeasedJob] = []

    async def work_slowly() -> None:
        while len(slow) < min(32, 40 - len(helped)):  # the last eight are not for it
            await asyncio.sleep(0.3)
            slow.extend(await member.lease([Q], 1, 0.0, "w"))

    async def help_out() -> None:
        while len(slow) + len(helped) < 40:
            await asyncio.sleep(0.3)
            helped.extend(await idle.lease([Q], 1, 1.0, "w"))

    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(work_slowly(), help_out())
    assert sorted(map(int, payloads([*slow, *helped]))) == list(range(40)), "each once"


# What travels by the log --------------------------------------------------------------------------


async def test_a_job_with_a_unique_key_travels_by_the_log(yard: Yard) -> None:
    (first,) = await yard.engine.enqueue([job("a", unique_key="x")])
    async with yard.transaction() as tx:
        assert await yard.other.enqueue([job("b", unique_key="x")], tx) == [None]
        await yard.other.enqueue([job("c", unique_key="y"), job("d")], tx)
    leased = await take(yard.engine)
    assert payloads(leased) == ["a", "c", "d"]
    assert leased[0].id == first
    assert all(isinstance(one, LoggedJob) for one in leased)
    assert await yard.engine.complete(leased) == ids(leased)
    assert await counts(yard.engine) == (0, 0, 0, 0)
    assert await yard.engine.enqueue([job("e", unique_key="x")]) != [None]


async def test_one_unique_key_has_one_job_whichever_way_it_goes(yard: Yard) -> None:
    later = yard.clock.now().replace(year=yard.clock.now().year + 1)
    await yard.engine.enqueue([job("later", unique_key="x", run_at=later)])
    assert await yard.engine.enqueue([job("now", unique_key="x")]) == [None]
    await yard.engine.enqueue([job("now", unique_key="y")])
    assert await yard.engine.enqueue([job("later", unique_key="y", run_at=later)]) == [None]


async def test_a_claim_that_rolls_back_leaves_its_key(yard: Yard) -> None:
    with pytest.raises(ZeroDivisionError):
        async with yard.transaction() as tx:
            assert await yard.engine.enqueue([job("a", unique_key="x")], tx) != [None]
            raise ZeroDivisionError
    assert await yard.engine.enqueue([job("b", unique_key="x")]) != [None]
    assert payloads(await take(yard.engine)) == ["b"]


async def test_of_many_who_claim_a_key_at_once_one_gets_it(yard: Yard) -> None:
    async def claim(name: str) -> int | None:
        (got,) = await yard.engine.enqueue([job(name, unique_key="x")])
        return got

    got = await asyncio.gather(*(claim(str(number)) for number in range(20)))
    assert sum(one is not None for one in got) == 1
    assert len(await take(yard.engine)) == 1


async def test_a_tenants_jobs_lie_together_on_its_few_partitions(
    cluster: KafkaCluster, database: Database
) -> None:
    prefix = f"k{token_hex(4)}."
    options = KafkaOptions(cluster.servers, prefix, f"{prefix}group")
    partitions = 24
    await Topics(options).provision({EMAIL_BULK: partitions})
    bus = MemoryBus()
    engine = KafkaEngine(
        postgres=PostgresEngine(database=database, bus=bus),
        database=database,
        bus=bus,
        options=options,
        lanes=(EMAIL_BULK,),
        every_s=0.0,
        joins=False,
    )
    try:
        tenant = uuid4()
        for number in range(6):
            new = NewJob(EMAIL_BULK, "k", b"", tenant, unique_key=f"u{number}")
            await engine.enqueue([new, NewJob(EMAIL_BULK, "k", b"", tenant)])
        await engine._drain.drain()
        places = [(options.topic(EMAIL_BULK), part) for part in range(partitions)]
        ends = await engine._lag.ends(places)
        used = {place[1] for place, end in ends.items() if end}
        first = key_of(tenant) % partitions
        near = {(first + step) % partitions for step in range(spread_of(partitions))}
        assert sum(ends.values()) == 12
        assert used <= near
    finally:
        await engine.close()


async def test_a_log_that_is_another_is_refused_instead_of_taking_its_records_for_old_ones(
    group: Group,
) -> None:
    engine = group.engine()
    await engine.check_log()
    await engine.enqueue([job(str(number)) for number in range(10)])
    await engine.complete(await gather(engine, 10))
    await engine.check_log()
    topics, topic = Topics(group.options), group.options.topic(EMAIL_SEND)
    [gone] = topics.admin.delete_topics([topic], operation_timeout=20.0).values()
    await asyncio.wrap_future(gone)
    async with asyncio.timeout(30):
        while topic in await topics.describe():
            await asyncio.sleep(0.1)
    await topics.provision({EMAIL_SEND: 1})
    with pytest.raises(ConfigurationError, match="ends at 0, and 10 of its records"):
        await group.engine().check_log()
