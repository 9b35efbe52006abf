"""What only the PostgreSQL engine promises: stragglers, wake-ups at commit, schedules, plans."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import msgspec
import pytest
from contract.conftest import emptied
from contract.queue_words import Q, add, counts, job, payloads, take

from mailyard.bus.adapters.memory import MemoryBus
from mailyard.bus.adapters.postgres import PostgresBus
from mailyard.core.clock import ManualClock
from mailyard.core.ids import uuid7
from mailyard.queue.batch import Batch, Handler
from mailyard.queue.engine import WakeUps, topic_of
from mailyard.queue.engines import stage
from mailyard.queue.engines.postgres import PostgresEngine
from mailyard.queue.job import NewJob
from mailyard.queue.schedule import Every, Schedule, Scheduler
from mailyard.queue.worker import Worker
from mailyard.storage.database import Database, DatabaseAddress
from mailyard.storage.queries import load


@pytest.fixture
async def database(shared_database_url: str) -> AsyncIterator[Database]:
    async with emptied(shared_database_url) as database:
        yield database


@pytest.fixture
def engine(database: Database) -> PostgresEngine:
    """As in the product: the database's time, staging every few milliseconds."""
    return PostgresEngine(database=database, bus=MemoryBus())


async def test_a_straggler_is_found_while_the_line_moves_on(
    engine: PostgresEngine, database: Database
) -> None:
    async with database.transaction() as tx:
        await engine.enqueue([job("late")], tx)
        for _ in range(10):
            await add(engine, *map(str, range(50)))
            assert "late" not in payloads(await take(engine, 50))
    found: list[str] = []
    async with asyncio.timeout(20):
        while "late" not in found:
            await add(engine, "more")
            found += payloads(await take(engine, 10))


async def test_a_backlog_of_two_tenants_is_leased_whole_and_without_a_pause(
    engine: PostgresEngine,
) -> None:
    """25 are not two whole shares: each lease cuts one of the two lines short."""
    tenants = [uuid7(), uuid7()]
    for tenant in tenants:
        await engine.enqueue([job(str(number), workspace_id=tenant) for number in range(300)])
    for _ in range(6):  # until all of these places are settled
        await engine.depth([Q])
        await asyncio.sleep(0.06)
    left = dict.fromkeys(tenants, 300)
    async with asyncio.timeout(10):
        while any(left.values()):
            leased = await take(engine, 25)
            await engine.complete(leased)
            for one in leased:
                assert one.workspace_id is not None
                left[one.workspace_id] -= 1
            assert min(left.values()) > 0 or max(left.values()) <= 50, "they take turns"


async def test_the_very_first_job_of_all_may_come_late_too(
    engine: PostgresEngine, database: Database
) -> None:
    """Nothing tells its place, the first, and its transaction, the newest, from settled ones."""
    await database.pool.execute("ALTER SEQUENCE job_place RESTART")

    async def look_often() -> None:
        for _ in range(5):
            assert await take(engine) == []
            await asyncio.sleep(0.03)

    await look_often()
    async with database.transaction() as tx:
        await engine.enqueue([job("first", workspace_id=uuid7())], tx)
        await look_often()
    assert payloads(await engine.lease([Q], 1, 10.0, "worker-1")) == ["first"]


async def test_transactions_that_hold_the_whole_pool_still_open_new_lines(
    shared_database_url: str, database: Database
) -> None:
    small = Database(DatabaseAddress(shared_database_url, shared_database_url, connections=2))
    await small.open()
    engine = PostgresEngine(database=small, bus=MemoryBus())
    holding = asyncio.Barrier(2)

    async def first_job_of_a_workspace(name: str) -> None:
        async with small.transaction() as tx:
            await holding.wait()
            await engine.enqueue([job(name, workspace_id=uuid7())], tx)

    try:
        async with asyncio.timeout(20):
            await asyncio.gather(*map(first_job_of_a_workspace, ("a", "b")))
    finally:
        small.pool.terminate()
    taken = await take(PostgresEngine(database=database, bus=MemoryBus()), 5)
    assert sorted(payloads(taken)) == ["a", "b"]


@asynccontextmanager
async def another_process(url: str, bus: WakeUps) -> AsyncIterator[PostgresEngine]:
    """An engine with a pool of its own, that knows no line which it has not read."""
    database = Database(DatabaseAddress(url, url, connections=2))
    await database.open()
    yield PostgresEngine(database=database, bus=bus)
    await database.close()


@pytest.fixture
def lines_are_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The periodic look at the lines never comes after the first."""
    monkeypatch.setattr(stage, "_LINES_EVERY_S", 1e6)


@pytest.mark.usefixtures("lines_are_not_looked_for")
async def test_a_job_on_a_line_that_another_process_has_just_made_is_leased_at_once(
    database: Database, shared_database_url: str
) -> None:
    ours, theirs = PostgresBus(database=database), PostgresBus(database=database)
    engine = PostgresEngine(database=database, bus=ours)
    async with another_process(shared_database_url, theirs) as other:
        for bus in (ours, theirs):
            await bus.open()
        try:
            assert await take(engine) == []  # the first look, and the last
            leasing = asyncio.create_task(engine.lease([Q], 10, 20.0, "worker-1"))
            await add(other, "first", workspace_id=uuid7())
            assert payloads(await leasing) == ["first"]
        finally:
            for bus in (ours, theirs):
                await bus.close()


@pytest.mark.usefixtures("lines_are_not_looked_for")
async def test_lanes_that_are_woken_together_all_know_their_new_lines(
    database: Database, shared_database_url: str
) -> None:
    bus = MemoryBus()
    engine = PostgresEngine(database=database, bus=bus)
    lanes = [Q, "email-bulk", "inbound-email", "webhooks"]
    async with another_process(shared_database_url, bus) as other:
        for round_ in range(5):
            workspace_id = uuid7()
            leasing = [
                asyncio.create_task(engine.lease([queue], 10, 20.0, "worker-1")) for queue in lanes
            ]
            await asyncio.sleep(0)
            await other.enqueue(
                [job(f"{queue} {round_}", queue, workspace_id=workspace_id) for queue in lanes]
            )
            leased = await asyncio.gather(*leasing)
            assert list(map(payloads, leased)) == [[f"{queue} {round_}"] for queue in lanes]


@pytest.mark.usefixtures("lines_are_not_looked_for")
async def test_a_line_made_while_nobody_waited_is_known_at_the_next_lease(
    database: Database, shared_database_url: str
) -> None:
    bus = MemoryBus()
    engine = PostgresEngine(database=database, bus=bus)
    async with another_process(shared_database_url, bus) as other:
        assert await take(engine) == []
        await add(other, "first", workspace_id=uuid7())
        assert payloads(await take(engine)) == ["first"]


async def test_a_new_line_of_which_no_notice_came_is_found_by_looking(
    engine: PostgresEngine, shared_database_url: str
) -> None:
    async with another_process(shared_database_url, MemoryBus()) as deaf:
        assert await take(engine) == []
        await add(deaf, "first", workspace_id=uuid7())
        assert payloads(await engine.lease([Q], 10, 20.0, "worker-1")) == ["first"]


async def test_an_enqueue_may_go_in_one_message_with_another_statement(
    engine: PostgresEngine, database: Database
) -> None:
    """Together they are one transaction, in which nothing of a job is anything but a value."""
    nasty = [NewJob(Q, "it's \\ $1", bytes(range(256)), uuid7()), job("plain")]
    statement = await engine.statement(nasty)
    async with database.connection() as connection:
        with pytest.raises(asyncpg.DivisionByZeroError):
            await connection.execute(f"{statement}; SELECT 1 / 0")
        assert await take(engine, 10) == []
        assert await connection.execute(f"SELECT 1; {statement}") == "SELECT 1"
    leased = await take(engine, 10)
    assert {(one.kind, one.payload, one.workspace_id) for one in leased} == {
        (one.kind, one.payload, one.workspace_id) for one in nasty
    }
    assert (await engine.depth([Q]))[0].leased == 2


async def test_a_commit_wakes_the_waiting_by_itself(database: Database) -> None:
    bus = MemoryBus()
    engine = PostgresEngine(database=database, bus=bus)
    subscription = bus.subscribe(topic_of(Q))
    async with database.transaction() as tx:
        await engine.enqueue([job("a")], tx)
        assert not await subscription.wait(0.05)
    assert await subscription.wait(20.0)


async def test_a_delayed_job_wakes_its_waiting_worker_in_time(engine: PostgresEngine) -> None:
    run_at = datetime.now(UTC) + timedelta(seconds=0.3)
    await add(engine, "soon", run_at=run_at)
    leased = await engine.lease([Q], 10, 30.0, "worker-1")
    assert payloads(leased) == ["soon"]
    assert datetime.now(UTC) >= run_at


async def test_counts_stay_exact_through_folds(engine: PostgresEngine) -> None:
    await add(engine, *map(str, range(20)))
    for _ in range(5):
        await engine.fold()
        await engine.complete(await take(engine, 2))
        await asyncio.gather(engine.fold(), engine.fold(), add(engine, "more"))
    assert await counts(engine) == (15, 0, 0, 0)


async def test_nothing_is_left_behind_when_all_is_done(
    engine: PostgresEngine, database: Database
) -> None:
    await add(engine, *map(str, range(30)))
    await add(engine, "u", unique_key="x", run_at=datetime.now(UTC))
    done = 0
    async with asyncio.timeout(20):
        while done < 31:
            leased = await engine.lease([Q], 7, 1.0, "worker-1")
            for each in leased:  # one by one, as single-job handlers may
                done += len(await engine.complete([each]))
    async with database.connection() as connection:
        for table in ("job", "job_ready", "job_scheduled", "job_lease", "job_slot"):
            assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 0, table


async def test_a_schedule_fires_once_a_tick_across_schedulers(database: Database) -> None:
    clock = ManualClock()
    engine = PostgresEngine(database=database, bus=MemoryBus(), clock=clock, upkeep_s=0.0)
    schedule = Schedule(
        "sweep", Every(60), lambda tick: NewJob(Q, "sweep", tick.isoformat().encode())
    )
    schedulers = [
        Scheduler(database=database, engine=engine, clock=clock, schedules=[schedule])
        for _ in range(3)
    ]
    for _ in range(5):
        await asyncio.gather(*(scheduler.fire() for scheduler in schedulers * 2))
        clock.advance(60)
    await asyncio.gather(*(scheduler.fire() for scheduler in schedulers))
    ticks = payloads(await take(engine))
    assert len(ticks) == len(set(ticks)) == 5


async def test_ticks_missed_while_nobody_ran_fire_once(database: Database) -> None:
    clock = ManualClock()
    engine = PostgresEngine(database=database, bus=MemoryBus(), clock=clock, upkeep_s=0.0)
    schedule = Schedule("sweep", Every(60), lambda _: NewJob(Q, "sweep", b""))
    scheduler = Scheduler(database=database, engine=engine, clock=clock, schedules=[schedule])
    assert await scheduler.fire() == 0
    clock.advance(3600)
    assert await scheduler.fire() == 1
    assert await scheduler.fire() == 0


async def test_a_worker_goes_on_when_its_connections_are_cut(
    engine: PostgresEngine, database: Database, shared_database_url: str
) -> None:
    seen: set[bytes] = set()

    async def handle(batch: Batch) -> None:
        seen.update(each.payload for each in batch.jobs)

    worker = Worker(engine=engine, handlers=[Handler("deliver", Q, handle, 5, 2)], name="w")
    running = asyncio.create_task(worker.run())
    other = await asyncpg.connect(shared_database_url)
    feeder = PostgresEngine(database=database, bus=MemoryBus())
    expected: set[bytes] = set()
    for turn in range(5):
        names = [f"{turn}-{number}" for number in range(20)]
        async with asyncio.timeout(20):
            while True:
                try:
                    await add(feeder, *names)
                    break
                except Exception:
                    await asyncio.sleep(0.05)
        expected |= {name.encode() for name in names}
        await other.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await asyncio.sleep(0.05)
    async with asyncio.timeout(50):
        while not expected <= seen:
            await asyncio.sleep(0.02)
    worker.drain()
    await asyncio.wait_for(running, 30)
    await other.close()


HOT = {"lease": 8, "extend": 6, "complete": 5, "give_back": 9, "bury": 7, "promote": 3}


@pytest.mark.parametrize("name", HOT)
async def test_hot_statements_reach_jobs_by_their_keys(
    engine: PostgresEngine, database: Database, name: str
) -> None:
    """Even with the one plan that PostgreSQL made while the tables were empty and just vacuumed.

    A plan that reads a table or an index from end to end is cheap then, and ruinous when the table
    fills, or is full of dead rows that an old snapshot protects.
    """
    await add(engine, *map(str, range(500)))
    await engine.complete(await take(engine, 500))
    query = getattr(load("queue"), name)
    async with database.connection() as connection:
        for table in ("job", "job_ready", "job_lease"):
            await connection.execute(f"VACUUM ANALYZE {table}")
        async with connection.transaction():
            await connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")
            await connection.execute(f"PREPARE hot_{name} AS {query}")
            nothing = ", ".join(["null"] * HOT[name])
            (answer,) = await connection.fetch(
                f"EXPLAIN (FORMAT JSON) EXECUTE hot_{name} ({nothing})"
            )
            await connection.execute(f"DEALLOCATE hot_{name}")
    for node in nodes(msgspec.json.decode(answer[0])[0]["Plan"]):
        if node["Node Type"] == "Seq Scan":
            assert node["Relation Name"] not in LARGE, node
        if "Index" in node["Node Type"]:
            assert "Index Cond" in node or node.get("Relation Name") == "job_scheduled", node


LARGE = ("job", "job_ready", "job_lease")


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All nodes of a plan, as EXPLAIN gives it."""
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)
