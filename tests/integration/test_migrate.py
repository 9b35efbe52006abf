"""Migrations: once each, together or alone, and never over a database of another history."""

import asyncio
from collections.abc import AsyncIterator
from secrets import token_hex

import asyncpg
import pytest
from conftest import with_database

from mailyard.core.errors import ConfigurationError
from mailyard.storage.migrate import Migration, known_migrations, migrate, pending

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


async def test_a_database_of_a_newer_version_is_refused(empty_url: str) -> None:
    await migrate(empty_url, [FIRST, SECOND])
    with pytest.raises(ConfigurationError, match=r"newer Mailyard.*0002_second"):
        await migrate(empty_url, [FIRST])
    with pytest.raises(ConfigurationError, match="newer Mailyard"):
        await pending(empty_url, [FIRST])


async def test_a_migration_edited_after_it_was_applied_is_refused(empty_url: str) -> None:
    await migrate(empty_url, [FIRST])
    edited = Migration(1, "first", FIRST.text + " ")
    with pytest.raises(ConfigurationError, match="0001_first is not the one that was applied"):
        await migrate(empty_url, [edited])
