"""The scheduler's duties on a real database, and who leads."""

import asyncio
from datetime import UTC, datetime, timedelta

from mailyard.access.audit import Audit
from mailyard.access.idempotency import Idempotency
from mailyard.access.session import Sessions
from mailyard.bus.adapters.memory import MemoryBus
from mailyard.bus.adapters.postgres_presence import PostgresPresence
from mailyard.core.clock import ManualClock, SystemClock
from mailyard.core.ids import uuid7
from mailyard.fleet import sweep
from mailyard.fleet.duties import counters, partitions, processes
from mailyard.fleet.duty import Duty, perform
from mailyard.fleet.fence import Fence
from mailyard.fleet.leader import Leader
from mailyard.fleet.registry import ProcessRegistry
from mailyard.queue.engines.postgres import PostgresEngine
from mailyard.queue.job import CLEANUP
from mailyard.queue.schedule import Scheduler
from mailyard.queue.worker import Worker
from mailyard.ratelimit.adapters.postgres import PostgresRateLimit
from mailyard.storage.database import Database

DELTA = """
    INSERT INTO counter_delta (workspace_id, name, subject, minute, amount)
    VALUES ($1, $2, $1, $3, $4)
"""


async def until(condition, patience_s: float = 20.0) -> None:  # type: ignore[no-untyped-def]
    async with asyncio.timeout(patience_s):
        while not await condition():
            await asyncio.sleep(0.02)


async def test_deltas_are_folded_once_whoever_folds(database: Database) -> None:
    workspace = uuid7()
    minute = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)
    rows = [(workspace, name, minute, 1) for name in ("received", "accepted") for _ in range(3_000)]
    await database.pool.executemany(DELTA, rows)
    await database.pool.executemany(DELTA, [(workspace, "received", minute, -1)] * 10)
    duties = [counters.fold(database) for _ in range(4)]
    while any(await asyncio.gather(*(duty.do() for duty in duties))):
        pass
    await asyncio.gather(*(duty.do() for duty in duties))
    sums = await database.pool.fetch("SELECT name, amount FROM counter ORDER BY name")
    assert [tuple(row) for row in sums] == [("accepted", 3_000), ("received", 2_990)]
    assert await database.pool.fetchval("SELECT count(*) FROM counter_delta") == 0


async def test_old_minutes_are_forgotten_and_young_ones_stay(database: Database) -> None:
    now = datetime.now(UTC)
    for days in (500, 399):
        await database.pool.execute(
            "INSERT INTO counter VALUES ($1, 'received', $1, $2, 5)", uuid7(), now - timedelta(days)
        )
    await counters.forget(database, SystemClock()).do()
    assert await database.pool.fetchval("SELECT count(*) FROM counter") == 1


async def test_what_has_run_out_goes_and_the_rest_stays(database: Database) -> None:
    now = datetime.now(UTC)
    pool = database.pool
    workspace, user = uuid7(), uuid7()
    await pool.execute("INSERT INTO workspace (id, name) VALUES ($1, 'w')", workspace)
    await pool.execute("INSERT INTO user_account (id, email) VALUES ($1, 'a@b.c')", user)
    for word, moment in (("old", now - timedelta(days=2)), ("new", now + timedelta(days=2))):
        await pool.execute(
            "INSERT INTO idempotency_key "
            "(workspace_id, key, body_hash, status, answer, expires_at) "
            "VALUES ($1, $2, '', 200, '', $3)",
            workspace, word, moment,
        )  # fmt: skip
        await pool.execute(
            "INSERT INTO session (token_hash, user_id, workspace_id, csrf_token, expires_at) "
            "VALUES ($1, $2, $3, '', $4)",
            word.encode(), user, workspace, moment,
        )  # fmt: skip
        await pool.execute(
            "INSERT INTO login_link (token_hash, user_id, expires_at) VALUES ($1, $2, $3)",
            word.encode(), user, moment,
        )  # fmt: skip
        await pool.execute(
            "INSERT INTO address (address, workspace_id, inbox_id, retention_days, expires_at) "
            "VALUES ($1, $2, $2, 1, $3)",
            f"{word}@inbox.localhost", workspace, moment,
        )  # fmt: skip
        await pool.execute("INSERT INTO rate_bucket (key, tat) VALUES ($1, $2)", word, moment)
    clock, engine = ManualClock(now), PostgresEngine(database=database, bus=MemoryBus())
    scheduler = Scheduler(
        database=database, engine=engine, clock=clock, schedules=[sweep.schedule()]
    )
    await scheduler.fire()
    clock.advance(61.0)
    assert await scheduler.fire() == 1
    worker = Worker(
        engine=engine,
        name="sweeper",
        handlers=[
            sweep.handler(
                [
                    sweep.free_addresses(database),
                    Idempotency(database=database).sweep,
                    Sessions(database=database, audit=Audit(database=database)).sweep,
                    PostgresRateLimit(database=database).sweep,
                ]
            )
        ],
    )
    running = asyncio.create_task(worker.run())

    async def swept() -> bool:
        [depth] = await engine.depth([CLEANUP])
        return depth.ready + depth.leased == 0

    await until(swept)
    worker.drain()
    await running
    for table, column in (
        ("idempotency_key", "key"),
        ("session", "convert_from(token_hash, 'UTF8')"),
        ("login_link", "convert_from(token_hash, 'UTF8')"),
        ("address", "split_part(address, '@', 1)"),
        ("rate_bucket", "key"),
    ):
        left = await pool.fetch(f"SELECT {column} AS word FROM {table}")
        assert [row["word"] for row in left] == ["new"], table


async def test_partitions_are_made_ahead_of_the_clock(database: Database) -> None:
    clock = ManualClock(datetime(2031, 5, 30, tzinfo=UTC))
    await partitions.make_ahead(database, clock).do()
    assert await database.pool.fetchval("SELECT to_regclass('message_d1_2031_06_01') IS NOT NULL")


async def test_a_silent_process_is_struck_out_and_comes_back_when_it_speaks(
    database: Database,
) -> None:
    process = ProcessRegistry(
        presence=PostgresPresence(database=database),
        role="worker",
        id=uuid7(),
        memory_bytes=1 << 30,
    )
    beating = asyncio.create_task(process.run())
    count = "SELECT count(*) FROM process WHERE (stats->>'memory_bytes')::bigint > 1000000"

    async def entered() -> bool:
        return bool(await database.pool.fetchval(count) == 1)

    await until(entered)
    await processes.reap(database).do()
    assert await entered()
    await database.pool.execute("UPDATE process SET seen_at = now() - interval '31 seconds'")
    await processes.reap(database).do()
    assert not await entered()
    beating.cancel()
    again = asyncio.create_task(process.run())
    await until(entered)
    again.cancel()
    await process.leave()
    assert not await entered()


async def test_one_leads_and_the_next_takes_over_with_a_larger_epoch(database: Database) -> None:
    leading: list[int] = []

    def candidate(number: int) -> asyncio.Task[None]:
        async def lead(_: Fence) -> None:
            leading.append(number)
            await asyncio.Event().wait()

        leader = Leader(database=database, duty="test", holder=uuid7(), lead=lead, ask_s=0.02)
        return asyncio.create_task(leader.run())

    async def leaders(count: int) -> bool:
        return len(leading) >= count

    candidates = {number: candidate(number) for number in range(3)}
    await until(lambda: leaders(1))
    await asyncio.sleep(0.3)
    assert len(leading) == 1
    candidates.pop(leading[0]).cancel()
    await until(lambda: leaders(2))
    assert leading[1] != leading[0]
    assert await database.pool.fetchval("SELECT epoch FROM leader WHERE duty = 'test'") == 2
    # The server cuts the leader's session: it stops leading, and somebody leads again.
    await database.pool.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    await until(lambda: leaders(3))
    # A larger epoch than its own: the leader stops by itself.
    await database.pool.execute("UPDATE leader SET epoch = epoch + 10")
    await until(lambda: leaders(4))
    for task in candidates.values():
        task.cancel()
    await asyncio.gather(*candidates.values(), return_exceptions=True)


async def test_a_duty_that_fails_is_tried_again_and_stops_no_other() -> None:
    done: list[str] = []

    async def fail() -> bool:
        done.append("failed")
        raise OSError("away")

    async def work() -> bool:
        done.append("worked")
        return len(done) < 5

    performing = asyncio.create_task(perform([Duty("bad", 0.01, fail), Duty("good", 0.01, work)]))

    async def enough() -> bool:
        return done.count("worked") > 5 and done.count("failed") >= 2

    await until(enough)
    performing.cancel()
    await asyncio.gather(performing, return_exceptions=True)
