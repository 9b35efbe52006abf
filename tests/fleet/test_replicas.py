"""Reads on replicas: which one answers, what a caller always sees, and who is left out."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path
from secrets import token_hex

import pytest
from postgres_servers import Server, servers

from mailyard.core.errors import Unavailable
from mailyard.storage import replicas as replicas_module
from mailyard.storage.database import DatabaseAddress
from mailyard.storage.migrate import migrate
from mailyard.storage.queries import Query, timed_as
from mailyard.storage.reading import Reading, at_head, reading
from mailyard.storage.replicated import NoPrimary, ReplicatedDatabase
from mailyard.storage.written import forget_places

# Named like queries of a room whose reads may lag, so that they go the same way.
STANDBY = timed_as("SELECT pg_is_in_recovery() AS standby", "message.try_standby")
WHICH = timed_as("SELECT inet_server_port() AS port", "message.try_which")
WRITE = timed_as("INSERT INTO note (id) VALUES ($1)", "message.try_write")
READ = timed_as("SELECT id FROM note WHERE id = $1", "message.try_read")
SLY = timed_as("SELECT write_note($1) AS id", "message.try_sly")
UNLOGGED = timed_as("SELECT count(*) AS seen FROM scratch", "message.try_unlogged")


@pytest.fixture(scope="module")
def cluster_of_three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    """A primary and two standbys."""
    with servers(tmp_path_factory.mktemp("three"), standbys=2) as three:
        yield three


@pytest.fixture
async def database(
    cluster_of_three: list[Server], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ReplicatedDatabase]:
    """A migrated database of this test's own, with both replicas in use."""
    monkeypatch.setattr("mailyard.storage.replicated.LOOK_EVERY_S", 0.05)
    primary, *standbys = cluster_of_three
    name = f"t_{token_hex(6)}"
    primary.sql(f"CREATE DATABASE {name}")
    url = primary.url(name)
    await migrate(url)
    primary.sql(
        "CREATE TABLE note (id bigint PRIMARY KEY); CREATE UNLOGGED TABLE scratch (id bigint);"
        "CREATE FUNCTION write_note(id bigint) RETURNS bigint LANGUAGE sql AS "
        "'INSERT INTO note VALUES ($1) RETURNING id'",
        name,
    )
    database = ReplicatedDatabase(
        DatabaseAddress(url, url, connections=6), [standby.url(name) for standby in standbys]
    )
    await database.open()
    head = (await database.places.find(b"")).head
    await until(lambda: all(one.usable and one.replayed >= head for one in database.replicas))
    yield database
    await database.close()
    for standby in standbys:
        standby.freeze(signal.SIGCONT)
        standby.sql("SELECT pg_wal_replay_resume()")
    primary.sql(f"DROP DATABASE {name} WITH (FORCE)")


PATIENCE_S = 120.0


async def until(condition: object) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.01)


async def from_a_replica(
    database: ReplicatedDatabase, query: Query, *args: object, key: bytes = b"key"
) -> object:
    """What is answered there: the primary answers as long as no replica is near enough."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with reading(Reading(key)) as scope:
                found = await ask(database, query, *args)
            if scope.used:
                return found
            await asyncio.sleep(0.01)


async def ask(database: ReplicatedDatabase, query: Query, *args: object) -> object:
    return await database.fetchval(query, *args)


async def test_a_read_goes_to_a_replica_only_inside_a_scope(database: ReplicatedDatabase) -> None:
    assert await ask(database, STANDBY) is False
    assert await from_a_replica(database, STANDBY) is True


async def test_a_caller_always_finds_what_he_has_written(
    database: ReplicatedDatabase, cluster_of_three: list[Server]
) -> None:
    """Many fresh writes, each looked for at once; and one that no replica can have yet."""
    _, *standbys = cluster_of_three
    for number in range(300):
        await database.execute(WRITE, number)
        await database.wrote(b"key")
        with reading(Reading(b"key")):
            assert await ask(database, READ, number) == number
    for standby in standbys:
        standby.sql("SELECT pg_wal_replay_pause()")
    await database.execute(WRITE, 300)
    await database.wrote(b"key")
    assert await database.replicas[0].fetch(READ, (300,)) == [], "who asks it would miss it"
    with reading(Reading(b"key")) as scope:
        assert await ask(database, READ, 300) == 300
    assert not scope.used
    for standby in standbys:
        standby.sql("SELECT pg_wal_replay_resume()")
    assert await from_a_replica(database, READ, 300) == 300


async def test_what_a_replica_lacks_the_primary_gives(
    database: ReplicatedDatabase, cluster_of_three: list[Server]
) -> None:
    _, *standbys = cluster_of_three
    for standby in standbys:
        standby.sql("SELECT pg_wal_replay_pause()")
    await database.execute(WRITE, 1)
    position = await database.wrote(b"writer")
    with reading(Reading(b"writer")) as own:
        assert await ask(database, READ, 1) == 1
    assert not own.used
    seen = await from_a_replica(database, READ, 1, key=b"other")
    assert seen is None, "another caller may see what was before"
    with reading(Reading(b"other", position)):
        assert await ask(database, READ, 1) == 1, "the place was handed on"
    with reading(Reading(b"other")), at_head():
        assert await ask(database, READ, 1) == 1, "a value for others is as new as the primary"


async def test_the_place_is_shared_between_processes(
    database: ReplicatedDatabase, cluster_of_three: list[Server]
) -> None:
    _, *standbys = cluster_of_three
    elsewhere = ReplicatedDatabase(database._address, [one.url for one in database.replicas])
    await elsewhere.open()
    try:
        for standby in standbys:
            standby.sql("SELECT pg_wal_replay_pause()")
        await elsewhere.execute(WRITE, 1)
        await elsewhere.wrote(b"key")
        with reading(Reading(b"key")):
            assert await ask(database, READ, 1) == 1
    finally:
        await elsewhere.close()
    assert await forget_places(database) == 0


async def test_a_replica_that_is_too_far_behind_is_left_out_and_comes_back(
    database: ReplicatedDatabase,
    cluster_of_three: list[Server],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replicas_module, "BEHIND_MOST_S", 2.0)
    monkeypatch.setattr(replicas_module, "BEHIND_BACK_S", 1.0)
    _, slow, quick = cluster_of_three
    numbers = count()
    slow.sql("SELECT pg_wal_replay_pause()")

    async def write() -> None:
        while True:
            await database.execute(WRITE, next(numbers))
            await asyncio.sleep(0.02)

    writing = asyncio.create_task(write())
    first = database.replicas[0]
    try:
        await until(lambda: "s behind" in first.trouble)
        assert not first.usable
        assert await from_a_replica(database, WHICH) == quick.port
        slow.sql("SELECT pg_wal_replay_resume()")
        await until(lambda: first.usable)
    finally:
        writing.cancel()


async def test_the_least_behind_answers(
    database: ReplicatedDatabase, cluster_of_three: list[Server]
) -> None:
    _, slow, quick = cluster_of_three
    slow.sql("SELECT pg_wal_replay_pause()")
    await database.execute(WRITE, 1)
    await until(lambda: database.replicas[0].lag_s > 0.3)
    for _ in range(20):
        assert await from_a_replica(database, WHICH) == quick.port


async def test_a_replica_that_hangs_costs_a_moment_and_is_left_out(
    database: ReplicatedDatabase,
    cluster_of_three: list[Server],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replicas_module, "LOOK_TIMEOUT_S", 1.0)
    _, hangs, well = cluster_of_three
    hangs.freeze()
    await until(lambda: not database.replicas[0].usable)
    assert await from_a_replica(database, WHICH) == well.port
    hangs.freeze(signal.SIGCONT)
    await until(lambda: database.replicas[0].usable)


async def test_what_is_not_for_replicas_is_asked_of_the_primary_at_once(
    database: ReplicatedDatabase,
) -> None:
    numbers = count(7)
    with reading(Reading(b"key")) as scope:
        while not {SLY, UNLOGGED} <= database._not_for_replicas:  # until a replica was near enough
            number = next(numbers)
            assert await ask(database, SLY, number) == number
            assert await ask(database, UNLOGGED) == 0
        assert not scope.used
        await database.execute(WRITE, next(numbers))
        assert scope.wrote
    with pytest.raises(Exception, match="does not exist"), reading(Reading(b"key")):
        await ask(database, timed_as("SELECT * FROM nowhere", "message.try_nowhere"))
    assert all(replica.usable for replica in database.replicas)


async def test_a_server_that_is_no_standby_is_not_read_from(
    database: ReplicatedDatabase, cluster_of_three: list[Server]
) -> None:
    primary = cluster_of_three[0]
    url = database._address.url
    alone = ReplicatedDatabase(database._address, [url, "postgresql://x@127.0.0.1:1/x"])
    await alone.open()
    try:
        itself, away = alone.replicas
        assert "no standby" in itself.trouble and itself.name == primary.place
        assert not away.usable and away.trouble
        with reading(Reading(b"key")) as scope:
            assert await ask(alone, STANDBY) is False
        assert not scope.used
    finally:
        await alone.close()


async def test_the_primary_moves_and_nothing_that_was_acknowledged_is_missed(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL for the primary under load, a promotion, and the old one coming back by mistake."""
    monkeypatch.setattr("mailyard.storage.replicated.LOOK_EVERY_S", 0.05)
    monkeypatch.setattr("mailyard.storage.replicated.PATIENCE_S", PATIENCE_S)
    with servers(tmp_path_factory.mktemp("failover"), standbys=1) as (old, new):
        old.sql("ALTER SYSTEM SET synchronous_standby_names = '*'")
        old.sql("SELECT pg_reload_conf()")
        await migrate(old.url())
        old.sql("CREATE TABLE note (id bigint PRIMARY KEY)")
        url = f"postgresql://postgres@{old.place},{new.place}/postgres"
        database = ReplicatedDatabase(
            DatabaseAddress(url, url, connections=6), [old.url(), new.url()]
        )
        await database.open()
        acknowledged: list[int] = []
        reads = refused = 0
        numbers = count()
        stopping = asyncio.Event()

        async def write() -> None:
            nonlocal refused
            while not stopping.is_set():
                number = next(numbers)
                try:
                    await database.execute(WRITE, number)
                    acknowledged.append(number)
                except Unavailable:
                    refused += 1

        async def read() -> None:
            nonlocal reads
            while not stopping.is_set():
                await database.fetchval(READ, 0)  # raises nothing, whatever happens
                reads += 1
                await asyncio.sleep(0.001)

        work = [asyncio.create_task(one()) for one in (write, write, read, read)]
        try:
            await until(lambda: len(acknowledged) > 200)
            await asyncio.to_thread(old.kill)
            await asyncio.to_thread(new.promote)
            before = len(acknowledged)
            await until(lambda: len(acknowledged) > before + 200)
            # The old one comes up again as if nothing had been: it takes writes, but not ours.
            (old.folder / "postgresql.auto.conf").write_text("")
            await asyncio.to_thread(old.start)
            with pytest.raises(NoPrimary, match="old primary"):
                await database._connect(old.url())
            before = len(acknowledged)
            await until(lambda: len(acknowledged) > before + 200)
        finally:
            stopping.set()
            await asyncio.gather(*work)
            await database.close()
        kept = {int(line) for line in new.sql("SELECT id FROM note").split()}
        assert set(acknowledged) <= kept
        assert refused <= 4 and reads > 0
        assert int(old.sql("SELECT count(*) FROM note")) < len(kept)


def test_the_programs_are_there() -> None:
    """On a machine of CI nothing here is skipped."""
    assert Path("/usr/sbin/pgbouncer").exists() or os.environ.get("CI") != "true"
