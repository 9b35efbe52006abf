"""Days of life in seconds: inboxes end, partitions drop, caches run out, and nothing grows.

The clock port and the database's `now()` are moved together: the database has a schema `sim` before
`pg_catalog` in its search path, whose `now()` is as far ahead as the clock. When the longest of the
short lives has gone round, a day more leaves table sizes, the number of tables and the objects in
memory as they were.
"""

import gc
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from secrets import token_hex
from uuid import UUID

import asyncpg
import pytest
from app_work import ask, receive, work
from conftest import with_database
from mail_platform import about

from mailyard.app import Application
from mailyard.cli.serving.scheduler import duties
from mailyard.core.clock import ManualClock, SystemClock
from mailyard.core.ids import uuid7
from mailyard.fleet.fence import Fence
from mailyard.mailbox.inbox_value import NewInbox
from mailyard.receiving.accept import Acceptor
from mailyard.settings import Settings
from mailyard.storage.migrate import migrate
from mailyard.storage.partitions import LIVE_EVENT_KEEP_DAYS, ensure_partitions

STEP_S = 6 * 3600.0
STEPS_A_DAY = 4
WARM_UP_DAYS = LIVE_EVENT_KEEP_DAYS + 2  # until the longest of the short lives has gone round
INBOXES = 12  # a step
# Each life ends within a day, whatever it ends by.
WANTED = [
    NewInbox(ttl_s=600.0),
    NewInbox(ttl_s=86_000.0),
    NewInbox(ttl_s=86_000.0, one_time=True),
    NewInbox(ttl_s=7_200.0, messages_max=1),
]
SIMULATED = """
    CREATE SCHEMA sim;
    CREATE TABLE sim.ahead (by interval NOT NULL);
    INSERT INTO sim.ahead VALUES ('0');
    CREATE FUNCTION sim.now() RETURNS timestamptz LANGUAGE sql STABLE
        AS 'SELECT pg_catalog.now() + by FROM sim.ahead';
"""
TABLES = """
    SELECT relname::text AS name FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
"""
LEADS = "INSERT INTO leader (duty, epoch, holder) VALUES ('scheduler', 1, gen_random_uuid())"
PARTS = "SELECT count(*) FROM pg_class WHERE relispartition AND relkind = 'r'"


@pytest.fixture
async def app(server_url: str, tmp_path: Path) -> AsyncIterator[Application]:
    name = f"mailyard_sim_{token_hex(6)}"
    server = await asyncpg.connect(server_url)
    await server.execute(f'CREATE DATABASE "{name}"')
    await server.execute(f'ALTER DATABASE "{name}" SET search_path = public, sim, pg_catalog')
    url = with_database(server_url, name)
    own = await asyncpg.connect(url)
    await own.execute(SIMULATED)
    await own.close()
    await migrate(url)
    application = Application(Settings(data=tmp_path, database_url=url, inbox_domain="inbox.test"))
    application.clock = ManualClock(SystemClock().now())  # type: ignore[assignment]
    await application.open()
    await ensure_partitions(application.database, application.clock.now())
    await application.database.pool.execute(LEADS)
    yield application
    await application.close()
    await server.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    await server.close()


async def live(app: Application, acceptor: Acceptor, workspace: UUID, kept: UUID) -> None:
    """Some hours: inboxes are made, mail comes, time passes, duties are done."""
    made = await app.inboxes.create(workspace, WANTED * (INBOXES // len(WANTED)))
    for inbox in made:
        await receive(acceptor, inbox.address, content=about("code 4711"))
    address = (await app.inboxes.get(workspace, kept)).address
    await receive(acceptor, address, content=about("for a while"))
    await work(app)
    for inbox in made:
        await app.messages.list(workspace, inbox.id)
    clock = app.clock
    assert isinstance(clock, ManualClock)
    clock.advance(STEP_S)
    await app.database.pool.execute("UPDATE sim.ahead SET by = by + $1", timedelta(seconds=STEP_S))
    fence = Fence(app.database, "scheduler", epoch=1, lease_s=3_600.0)
    for duty in duties(app, fence):
        while await duty.do():
            pass
    await work(app)  # the sweep that the scheduler has asked for among it
    assert (await ask(acceptor, made[0].address)).code == 550


async def sizes(app: Application) -> dict[str, int]:
    pool = app.database.pool
    return {
        row["name"]: await pool.fetchval(f'SELECT count(*) FROM public."{row["name"]}"')
        for row in await pool.fetch(TABLES)
    }


async def test_a_day_of_life_leaves_tables_and_memory_as_they_were(app: Application) -> None:
    workspace, pool = uuid7(), app.database.pool
    await pool.execute("INSERT INTO workspace VALUES ($1, 'Shop')", workspace)
    acceptor = Acceptor(
        database=app.database,
        engine=app.engine,
        hostname="mx.test",
        elsewhere=app.elsewhere,
        clock=app.clock,
    )
    [kept] = await app.inboxes.create(workspace, [NewInbox("kept", message_ttl_s=3_600.0)])
    names: set[str] = set()
    for _ in range(WARM_UP_DAYS * STEPS_A_DAY):
        await live(app, acceptor, workspace, kept.id)
        names |= {row[0] for row in await pool.fetch("SELECT relname FROM pg_class")}
    gc.collect()
    before, parts, objects = await sizes(app), await pool.fetchval(PARTS), len(gc.get_objects())
    for _ in range(STEPS_A_DAY):
        await live(app, acceptor, workspace, kept.id)
    gc.collect()
    after, parts_after = await sizes(app), await pool.fetchval(PARTS)

    grown = {
        name: (before[name], rows)
        for name, rows in after.items()
        if rows > 1.1 * before[name] + 10 and name not in HISTORY
    }
    assert grown == {}
    assert after["queue_delta"] < DELTAS
    assert parts_after <= parts + MONTHLY
    assert len(gc.get_objects()) < objects + 5_000
    # And it was life: mail of the first day came, and has left with its partitions.
    now = {row[0] for row in await pool.fetch("SELECT relname FROM pg_class")}
    left = {name for name in names - now if name.startswith("message_d1_")}
    assert len(left) >= 2
    assert after["inbox"] < 4 * STEPS_A_DAY * INBOXES
    assert 0 < after["inbox_message"] < 4 * STEPS_A_DAY * INBOXES
    await acceptor.close()


# What is there to grow, and for how long it is kept.
HISTORY = {
    "counter": "totals of minutes, for as long as charts show them",
    "queue_delta": "folded every some seconds of real time, which hardly passes here",
}
DELTAS = 1_000
MONTHLY = 60  # partitions that are made when a month begins, where the day is that
