"""The pool, the direct connections, and the names under which queries are timed."""

import asyncio
from datetime import UTC, datetime
from importlib.resources import files
from typing import NoReturn
from uuid import uuid4

import asyncpg
import pytest

from mailyard.core.errors import ConfigurationError, Unavailable
from mailyard.observe.metrics import REGISTRY
from mailyard.storage import array_types
from mailyard.storage.database import Database, DatabaseAddress
from mailyard.storage.queries import load, name_of

LIMIT = load("process").server_limit


def timed(name: str) -> float:
    return REGISTRY.get_sample_value("mailyard_database_query_seconds_count", {"query": name}) or 0


def test_every_query_file_loads_and_every_query_has_a_name_and_a_purpose() -> None:
    areas = [
        file.name.removesuffix(".sql")
        for file in files("mailyard.storage").joinpath("sql").iterdir()
        if file.name.endswith(".sql")
    ]
    assert len(areas) > 5
    for area in areas:
        for query in load(area):
            assert name_of(query).startswith(f"{area}.") and len(query) > 10


def test_a_query_that_is_not_there_is_named() -> None:
    with pytest.raises(AttributeError, match=r"process\.sql has no query named 'nope'"):
        _ = load("process").nope


async def test_a_query_is_timed_under_its_name(database: Database) -> None:
    before = timed("process.server_limit")
    assert await database.fetchval(LIMIT) > 10
    assert timed("process.server_limit") == before + 1


async def test_a_transaction_that_fails_leaves_nothing(database: Database) -> None:
    await database.pool.execute("CREATE TABLE t (x int)")
    with pytest.raises(ZeroDivisionError):
        async with database.transaction() as tx:
            await tx.execute("INSERT INTO t VALUES (1)")
            raise ZeroDivisionError
    assert await database.pool.fetchval("SELECT count(*) FROM t") == 0


async def test_a_server_that_is_away_is_unavailable_not_a_drivers_error() -> None:
    address = DatabaseAddress("postgresql://x@127.0.0.1:1/x", "postgresql://x@127.0.0.1:1/x", 2)
    with pytest.raises(Unavailable):
        await Database(address).open()
    with pytest.raises(Unavailable):
        await Database(address).direct()


async def test_a_connection_that_the_server_cut_is_unavailable_and_the_pool_recovers(
    database: Database,
) -> None:
    with pytest.raises(Unavailable):
        async with database.connection() as connection:
            other = await database.direct()
            pid = connection.get_server_pid()
            await other.execute("SELECT pg_terminate_backend($1)", pid)
            await other.close()
            await asyncio.sleep(0.1)
            await connection.fetchval("SELECT 1")
    assert await database.fetchval(LIMIT) > 10


def test_a_database_is_opened_before_it_is_used() -> None:
    with pytest.raises(ConfigurationError):
        _ = Database(DatabaseAddress("", "", 1)).pool


async def test_what_is_known_of_arrays_is_what_the_server_says(database: Database) -> None:
    direct = await database.direct()
    try:
        rows = await direct.fetch(
            "SELECT array_type.oid, array_type.typname, element.typname AS element,"
            " element.oid AS of"
            " FROM pg_type AS array_type"
            " JOIN pg_type AS element ON element.oid = array_type.typelem"
            " WHERE array_type.oid = ANY($1::oid[]) AND element.typdelim = ','",
            list(array_types.KNOWN),
        )
    finally:
        await direct.close()
    assert {row["oid"]: (row["element"], row["of"]) for row in rows} == array_types.KNOWN
    assert all(row["typname"] == f"_{row['element']}" for row in rows)


async def test_arrays_go_both_ways_without_a_question_to_the_catalogue(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*_: object) -> NoReturn:
        raise AssertionError("the catalogue was asked")

    monkeypatch.setattr(asyncpg.Connection, "_introspect_types", asked)
    direct = await database.direct()
    try:
        values = [[uuid4()], [7], [True, None], [datetime.now(UTC)], [b"\0"], ["x"], [1 << 40]]
        row = await direct.fetchrow(
            "SELECT $1::uuid[], $2::int2[], $3::bool[], $4::timestamptz[], $5::bytea[], $6::text[],"
            " $7::int8[]",
            *values,
        )
    finally:
        await direct.close()
    assert row is not None and list(row) == values
