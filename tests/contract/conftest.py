"""The engines under contract. Each test gets a fresh engine with a clock that is moved by hand."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from secrets import token_hex
from typing import Any

import asyncpg
import pytest
from conftest import run_aside, with_database

from mailyard.bus.adapters.memory import MemoryBus
from mailyard.core.clock import ManualClock
from mailyard.queue.engine import Engine
from mailyard.queue.engines.memory import MemoryEngine
from mailyard.queue.engines.postgres import PostgresEngine
from mailyard.storage.database import Database, DatabaseAddress

TABLES = [
    "job",
    "job_ready",
    "job_scheduled",
    "job_parked",
    "job_key",
    "job_slot",
    "job_lease",
    "job_dead",
    "queue_delta",
    "queue_count",
    "queue_policy",
    "queue_schedule",
    "rate_bucket",
]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(capability): skipped when the engine lacks it")


@dataclass(frozen=True)
class Yard:
    """An engine under test, a second process's engine on the same store, and their clock."""

    engine: Engine
    other: Engine
    clock: ManualClock
    bus: MemoryBus
    transaction: Callable[[], AbstractAsyncContextManager[Any]]


@pytest.fixture(scope="module")
def shared_database_url(server_url: str, template_database: str) -> Iterator[str]:
    """One database for the module; the tests empty it."""
    name = f"mailyard_contract_{token_hex(6)}"

    async def run(statement: str) -> None:
        server = await asyncpg.connect(server_url)
        try:
            await server.execute(statement)
        finally:
            await server.close()

    run_aside(run(f'CREATE DATABASE "{name}" TEMPLATE "{template_database}"'))
    yield with_database(server_url, name)
    run_aside(run(f'DROP DATABASE "{name}" WITH (FORCE)'))


@asynccontextmanager
async def emptied(url: str) -> AsyncIterator[Database]:
    """The module's database, with no jobs in it."""
    database = Database(DatabaseAddress(url, url, connections=6))
    await database.open()
    async with database.connection() as connection:
        for table in TABLES:
            await connection.execute(f"DELETE FROM {table}")
    yield database
    await database.close()


@pytest.fixture(params=["memory", "postgres"])
async def yard(request: pytest.FixtureRequest) -> AsyncIterator[Yard]:
    clock = ManualClock()
    bus = MemoryBus()
    if request.param == "memory":
        memory = MemoryEngine(clock=clock, bus=bus)
        yield Yard(memory, memory, clock, bus, memory.transaction)
        return
    async with emptied(request.getfixturevalue("shared_database_url")) as database:
        first = PostgresEngine(database=database, bus=bus, clock=clock, upkeep_s=0.0)
        second = PostgresEngine(database=database, bus=bus, clock=clock, upkeep_s=0.0)
        yield Yard(first, second, clock, bus, database.transaction)
