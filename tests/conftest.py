"""A real PostgreSQL for every test that asks: each gets a fresh, migrated database of its own.

The server is the one of MAILYARD_TEST_DATABASE_URL, or else an embedded one that lives as long as
the session, in a temporary folder.
"""

import asyncio
import os
import shutil
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import asyncpg
import parallel
import pytest

from mailyard.core.ids import uuid7
from mailyard.storage.database import Database, DatabaseAddress
from mailyard.storage.migrate import migrate
from mailyard.storage.partitions import ensure_partitions


def pytest_configure(config: pytest.Config) -> None:
    """Several processes write to a folder of the run's own (a worker is told its part of it)."""
    many = config.getoption("numprocesses", None) and not hasattr(config, "workerinput")
    if many and not config.option.basetemp:
        config.option.basetemp = str(parallel.choose_folder())
        config.add_cleanup(lambda: shutil.rmtree(config.option.basetemp, ignore_errors=True))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = parallel.in_order(items)


def run_aside(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine to its end on a loop of its own, whatever loop this thread has."""
    answers: list[Any] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(asyncio.run(work))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return answers[0]


def with_database(url: str, name: str) -> str:
    """`url`, pointing at the database `name` of the same server."""
    return urlunsplit(urlsplit(url)._replace(path="/" + name))


@pytest.fixture(scope="session")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The test server's address, with a user who may create databases."""
    given = os.environ.get("MAILYARD_TEST_DATABASE_URL")
    if given:
        yield given
        return
    from embedded_server import running_server

    folder: Path = tmp_path_factory.mktemp("postgres")
    with running_server(folder) as url:
        yield url


@pytest.fixture(scope="session")
def template_database(server_url: str) -> Iterator[str]:
    """The name of a migrated database with partitions, from which the others are copied."""
    name = f"mailyard_template_{token_hex(6)}"

    async def prepare() -> None:
        server = await asyncpg.connect(server_url)
        try:
            await server.execute(f'CREATE DATABASE "{name}"')
        finally:
            await server.close()
        url = with_database(server_url, name)
        await migrate(url)
        database = Database(DatabaseAddress(url, url, connections=2))
        await database.open()
        try:
            await ensure_partitions(database, datetime.now(UTC))
        finally:
            await database.close()

    run_aside(prepare())
    yield name
    run_aside(_drop(server_url, name))


@pytest.fixture
async def database_url(server_url: str, template_database: str) -> AsyncIterator[str]:
    """The address of a fresh, migrated database that is gone after the test."""
    async with _fresh_database(server_url, template_database) as url:
        yield url


@pytest.fixture
async def other_database_url(server_url: str, template_database: str) -> AsyncIterator[str]:
    """The address of another one, for tests that need two."""
    async with _fresh_database(server_url, template_database) as url:
        yield url


@asynccontextmanager
async def _fresh_database(server_url: str, template_database: str) -> AsyncIterator[str]:
    name = f"mailyard_test_{token_hex(6)}"
    server = await asyncpg.connect(server_url)
    try:
        await server.execute(
            f'CREATE DATABASE "{name}" TEMPLATE "{template_database}" STRATEGY FILE_COPY'
        )
    finally:
        await server.close()
    yield with_database(server_url, name)
    await _drop(server_url, name)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """An open `Database` on a database of this test's own."""
    database = Database(DatabaseAddress(database_url, database_url, connections=8))
    await database.open()
    yield database
    await database.close()


async def _drop(server_url: str, name: str) -> None:
    server = await asyncpg.connect(server_url)
    try:
        await server.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    finally:
        await server.close()


@pytest.fixture
def workspace_id() -> UUID:
    """A workspace that nobody has used before."""
    return uuid7()
