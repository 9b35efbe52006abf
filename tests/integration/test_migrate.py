"""Migrations: once each, together or alone, and never over a database of another history."""

import asyncio
from collections.abc import AsyncIterator
from secrets import token_hex

import asyncpg
import pytest
from conftest import with_database

from mailyard.core.errors import ConfigurationError, Unavailable
from mailyard.storage.migrate import Migration, known_migrations, migrate, pending, standing

FIRST = Migration(1, "first", "CREATE TABLE one (x integer); INSERT INTO one VALUES (1)")
SECOND = Migration(2, "second", "ALTER TABLE one ADD COLUMN y integer")


@pytest.fixture
async def empty_url(server_url: str) -> AsyncIterator[str]:
    name = f"mailyard_test_{token_hex(6)}"
    server = await asyncpg.connect(server_url)
    await server.execute(f'CREATE DATABASE "{name}"')
    yield with_database(server_url, name)
    await server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    await server.close()


async def value(url: str, sql: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


def test_the_migrations_of_this_version_are_numbered_without_a_gap() -> None:
    numbers = [migration.number for migration in known_migrations()]
    assert numbers == list(range(1, len(numbers) + 1))


async def test_each_migration_is_applied_once(empty_url: str) -> None:
    assert await pending(empty_url, [FIRST]) == ["0001_first"]
    assert await migrate(empty_url, [FIRST]) == ["0001_first"]
    assert await migrate(empty_url, [FIRST]) == []
    assert await migrate(empty_url, [FIRST, SECOND]) == ["0002_second"]
    assert await pending(empty_url, [FIRST, SECOND]) == []
    assert await value(empty_url, "SELECT count(*) FROM one") == 1


async def test_instances_that_start_together_do_not_collide(empty_url: str) -> None:
    done = await asyncio.gather(*(migrate(empty_url, [FIRST, SECOND]) for _ in range(6)))
    assert sorted(done, key=len)[-1] == ["0001_first", "0002_second"]
    assert sum(len(names) for names in done) == 2
    assert await value(empty_url, "SELECT count(*) FROM one") == 1


async def test_a_migration_that_fails_leaves_nothing_and_can_be_tried_again(empty_url: str) -> None:
    broken = Migration(2, "second", "CREATE TABLE two (x integer); SELECT no_such_function()")
    with pytest.raises(asyncpg.UndefinedFunctionError):
        await migrate(empty_url, [FIRST, broken])
    assert await value(empty_url, "SELECT to_regclass('two') IS NULL")
    assert await migrate(empty_url, [FIRST, SECOND]) == ["0002_second"]


async def test_a_build_goes_on_with_a_newer_schema_that_takes_nothing_from_it(
    empty_url: str,
) -> None:
    await migrate(empty_url, [FIRST, SECOND])
    assert await pending(empty_url, [FIRST]) == []
    assert await migrate(empty_url, [FIRST]) == []
    assert (await standing(empty_url, [FIRST])).newer == ("0002_second",)
    assert await value(empty_url, "SELECT max(number) FROM schema_migration") == 2


async def test_a_schema_that_has_taken_something_from_a_build_is_refused(empty_url: str) -> None:
    said = Migration(2, "said", "ALTER TABLE schema_migration ADD COLUMN breaks_below integer")
    taken = Migration(3, "taken", "-- breaks builds below 0002\nALTER TABLE one DROP COLUMN x")
    await migrate(empty_url, [FIRST, said, taken])
    assert await migrate(empty_url, [FIRST, said]) == []
    for meet in (migrate, pending):
        with pytest.raises(ConfigurationError, match=r"newer Mailyard.*0003_taken.*below 0002"):
            await meet(empty_url, [FIRST])


async def test_a_migration_edited_after_it_was_applied_is_refused(empty_url: str) -> None:
    await migrate(empty_url, [FIRST])
    edited = Migration(1, "first", FIRST.text + " ")
    with pytest.raises(ConfigurationError, match="0001_first is not the one that was applied"):
        await migrate(empty_url, [edited])


async def test_an_index_is_built_on_every_partition_while_others_write(empty_url: str) -> None:
    """A writer's open transaction stops no other; a build that was cut short is redone."""
    tables = Migration(
        1,
        "tables",
        "CREATE TABLE big (id int, day int, x text) PARTITION BY LIST (day);"
        "CREATE TABLE big_1 PARTITION OF big FOR VALUES IN (1) PARTITION BY RANGE (id);"
        "CREATE TABLE big_1_a PARTITION OF big_1 FOR VALUES FROM (0) TO (100);"
        "CREATE TABLE big_2 PARTITION OF big FOR VALUES IN (2);"
        "INSERT INTO big VALUES (1, 1, 'a'), (1, 2, 'b')",
    )
    text = "-- concurrently\nCREATE INDEX CONCURRENTLY big_by_x ON big (x) WHERE x <> '';"
    index = Migration(2, "index", text)
    await migrate(empty_url, [tables])
    holder, writer = await asyncpg.connect(empty_url), await asyncpg.connect(empty_url)
    try:
        async with holder.transaction():
            await holder.execute("INSERT INTO big_1_a VALUES (2, 1, 'held')")
            building = asyncio.create_task(migrate(empty_url, [tables, index]))
            waits = (
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE wait_event_type = 'Lock' AND datname = current_database()"
            )
            while not await writer.fetchval(waits):
                await asyncio.sleep(0.01)
            await writer.execute("INSERT INTO big VALUES (3, 1, 'c')", timeout=5)
            building.cancel()
            await asyncio.gather(building, return_exceptions=True)
            assert await writer.fetchval("SELECT count(*) FROM pg_index WHERE NOT indisvalid") > 0
        await until_idle(writer)
        assert await migrate(empty_url, [tables, index]) == ["0002_index"]
        invalid = "SELECT count(*) FROM pg_index WHERE NOT indisvalid"
        built = "SELECT count(*) FROM pg_class WHERE relname ~ 'big_by_x'"
        assert (await writer.fetchval(built), await writer.fetchval(invalid)) == (4, 0)
    finally:
        await holder.close()
        await writer.close()


async def until_idle(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    others = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE application_name = 'mailyard migrate' AND datname = current_database()"
    )
    while await connection.fetchval(others):
        await asyncio.sleep(0.01)


async def test_a_migration_does_not_stand_in_everybodys_way_while_it_waits(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailyard.storage.migrate.BEFORE_THE_RULE", 1)
    monkeypatch.setattr("mailyard.storage.migrate.LOCK_TIMEOUT_S", 0.05)
    await migrate(empty_url, [FIRST])
    holder = await asyncpg.connect(empty_url)
    try:
        async with holder.transaction():
            await holder.execute("SELECT * FROM one")
            with pytest.raises(Unavailable, match="0002_second"):
                await migrate(empty_url, [FIRST, SECOND])
        assert await migrate(empty_url, [FIRST, SECOND]) == ["0002_second"]
    finally:
        await holder.close()


async def test_what_could_not_be_run_twice_is_refused_outside_a_transaction(empty_url: str) -> None:
    text = "-- concurrently\nCREATE TABLE two (x integer);"
    with pytest.raises(ConfigurationError, match="second time"):
        await migrate(empty_url, [FIRST, Migration(2, "two", text)])
