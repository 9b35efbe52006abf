"""Every cache: values by key and workspace, for a while, many at a time, or not at all."""

from collections.abc import AsyncIterator

import pytest

from mailyard.cache.adapters.memory import MemoryCache
from mailyard.cache.adapters.postgres import PostgresCache
from mailyard.cache.cache import KEY_CHARACTERS, VALUE_BYTES, Cache
from mailyard.core.clock import ManualClock
from mailyard.core.ids import uuid7
from mailyard.storage.database import Database

HERE, ELSEWHERE = uuid7(), uuid7()


@pytest.fixture(params=["memory", "postgres"])
async def cache(request: pytest.FixtureRequest, database: Database) -> AsyncIterator[Cache]:
    yield MemoryCache() if request.param == "memory" else PostgresCache(database=database)


async def test_values_are_kept_by_key_and_workspace(cache: Cache) -> None:
    assert await cache.get(HERE, ["a", "b"]) == {}
    await cache.put(HERE, {"b": b"2", "a": b"\0"}, 60)
    await cache.put(HERE, {"a": b"one"}, 60)
    assert await cache.get(HERE, ["a", "b", "c"]) == {"a": b"one", "b": b"2"}
    assert await cache.get(ELSEWHERE, ["a"]) == {}
    await cache.drop(ELSEWHERE, ["a"])
    await cache.drop(HERE, ["b", "c"])
    assert await cache.get(HERE, ["a", "b"]) == {"a": b"one"}


async def test_what_is_too_long_is_not_kept_and_what_has_run_out_is_gone(cache: Cache) -> None:
    long = "k" * (KEY_CHARACTERS + 1)
    await cache.put(HERE, {long: b"x", "large": bytes(VALUE_BYTES + 1), "old": b"x"}, 0)
    await cache.put(HERE, {}, 60)
    assert await cache.get(HERE, [long, "large", "old"]) == {}


async def test_it_is_emptied_of_every_workspace(cache: Cache) -> None:
    many = {f"k{number}": b"x" for number in range(2_500)}
    await cache.put(HERE, many, 60)
    await cache.put(ELSEWHERE, {"a": b"x"}, 60)
    assert await cache.clear() is True
    assert await cache.get(HERE, list(many)) == {}
    assert await cache.get(ELSEWHERE, ["a"]) == {}
    await cache.put(HERE, {"a": b"new"}, 60)
    assert await cache.get(HERE, ["a"]) == {"a": b"new"}


async def test_rows_that_have_run_out_leave_and_the_others_stay(database: Database) -> None:
    cache = PostgresCache(database=database)
    await cache.put(HERE, {"old": b"x"}, -1)
    await cache.put(HERE, {"new": b"x"}, 60)
    await cache.sweep()
    async with database.connection() as connection:
        assert await connection.fetchval("SELECT array_agg(key) FROM cache_entry") == ["new"]


async def test_memory_forgets_what_was_not_used_for_longest() -> None:
    clock = ManualClock()
    cache = MemoryCache(clock=clock, size_bytes=3_000)
    await cache.put(HERE, {"a": bytes(900)}, 10)
    await cache.put(HERE, {"b": bytes(900)}, 100)
    await cache.get(HERE, ["a"])
    await cache.put(HERE, {"c": bytes(900)}, 100)
    assert set(await cache.get(HERE, ["a", "b", "c"])) == {"a", "c"}
    clock.advance(11)
    assert set(await cache.get(HERE, ["a", "c"])) == {"c"}
