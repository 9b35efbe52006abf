"""The contract of leases and of batches of takings: the adapters keep the same rules."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest

from mailyard.core.clock import ManualClock
from mailyard.ratelimit.adapters.memory import MemoryRateLimit
from mailyard.ratelimit.adapters.memory_leases import MemoryLeases
from mailyard.ratelimit.adapters.postgres import PostgresRateLimit
from mailyard.ratelimit.adapters.postgres_leases import PostgresLeases
from mailyard.ratelimit.lease import CLAIMS_PER_CALL, Claim, Lease, Leases
from mailyard.ratelimit.ratelimit import Drawn, RateLimit, Taking
from mailyard.storage.database import Database, DatabaseAddress

ONE, TWO, THREE = UUID(int=1), UUID(int=2), UUID(int=3)
TTL_S = 30.0


@dataclass(frozen=True)
class Store:
    """Leases as two processes see them, buckets, and the clock of both."""

    leases: Leases
    other: Leases
    buckets: RateLimit
    clock: ManualClock
    database: Database | None = None


@pytest.fixture(params=["memory", "postgres"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    clock = ManualClock()
    if request.param == "memory":
        memory = MemoryLeases(clock=clock)
        yield Store(memory, memory, MemoryRateLimit(clock=clock), clock)
        return
    url = request.getfixturevalue("shared_database_url")
    database = Database(DatabaseAddress(url, url, connections=6))
    await database.open()
    async with database.connection() as connection:
        await connection.execute("DELETE FROM connection_lease")
        await connection.execute("DELETE FROM rate_bucket")
    yield Store(
        PostgresLeases(database=database, clock=clock),
        PostgresLeases(database=database, clock=clock),
        PostgresRateLimit(database=database, clock=clock),
        clock,
        database,
    )
    await database.close()


async def test_the_first_gets_what_it_wants_up_to_the_limit(store: Store) -> None:
    claims = [Claim("a", 0, 3, 10), Claim("b", 0, 30, 10), Claim("c", 0, 1, 0)]
    leases = await store.leases.hold(ONE, claims, TTL_S)
    assert leases == [Lease(3, 3), Lease(10, 10), Lease(0, 1)]


async def test_the_second_gets_what_is_free_and_the_first_is_told_to_share(store: Store) -> None:
    await store.leases.hold(ONE, [Claim("a", 0, 10, 10)], TTL_S)
    assert await store.other.hold(TWO, [Claim("a", 0, 10, 10)], TTL_S) == [Lease(0, 5)]
    # The first keeps what it has open until it has closed some.
    assert await store.leases.hold(ONE, [Claim("a", 10, 10, 10)], TTL_S) == [Lease(10, 5)]
    assert await store.other.hold(TWO, [Claim("a", 0, 10, 10)], TTL_S) == [Lease(0, 5)]
    assert await store.leases.hold(ONE, [Claim("a", 5, 10, 10)], TTL_S) == [Lease(5, 5)]
    assert await store.other.hold(TWO, [Claim("a", 0, 10, 10)], TTL_S) == [Lease(5, 5)]


async def test_what_a_killed_holder_had_is_free_when_its_lease_is_void(store: Store) -> None:
    await store.leases.hold(ONE, [Claim("a", 0, 4, 4)], TTL_S)
    store.clock.advance(TTL_S - 1.0)
    assert await store.other.hold(TWO, [Claim("a", 0, 4, 4)], TTL_S) == [Lease(0, 2)]
    store.clock.advance(1.0)
    assert await store.other.hold(TWO, [Claim("a", 0, 4, 4)], TTL_S) == [Lease(4, 4)]


async def test_a_renewed_lease_lasts(store: Store) -> None:
    await store.leases.hold(ONE, [Claim("a", 0, 4, 4)], TTL_S)
    for _ in range(4):
        store.clock.advance(TTL_S / 2)
        assert await store.leases.hold(ONE, [Claim("a", 4, 4, 4)], TTL_S) == [Lease(4, 4)]
    assert (await store.other.hold(TWO, [Claim("a", 0, 4, 4)], TTL_S))[0].held == 0


async def test_what_is_given_back_is_free_at_once(store: Store) -> None:
    await store.leases.hold(ONE, [Claim("a", 0, 4, 4), Claim("b", 0, 4, 4)], TTL_S)
    await store.leases.hold(ONE, [Claim("a", 0, 0, 4)], TTL_S)
    await store.leases.release(THREE)
    assert await store.other.hold(TWO, [Claim("a", 0, 4, 4)], TTL_S) == [Lease(4, 4)]
    assert (await store.other.hold(TWO, [Claim("b", 0, 4, 4)], TTL_S))[0].held == 0
    await store.leases.release(ONE)
    assert (await store.other.hold(TWO, [Claim("b", 0, 4, 4)], TTL_S))[0].held == 4


async def test_holders_at_one_instant_never_get_more_than_the_limit(store: Store) -> None:
    holders = [UUID(int=number) for number in range(1, 9)]
    for _ in range(3):
        answers = await asyncio.gather(
            *(store.leases.hold(one, [Claim("a", 0, 3, 7)], TTL_S) for one in holders)
        )
        assert sum(lease.held for [lease] in answers) <= 7


@pytest.mark.parametrize(
    ("claims", "ttl_s"),
    [
        ([Claim("a", 0, 1, 1), Claim("a", 0, 1, 1)], TTL_S),
        ([Claim(str(number), 0, 1, 1) for number in range(CLAIMS_PER_CALL + 1)], TTL_S),
        ([Claim("a", -1, 1, 1)], TTL_S),
        ([Claim("a", 0, 1, 1)], 0.0),
    ],
)
async def test_nonsense_is_refused(store: Store, claims: list[Claim], ttl_s: float) -> None:
    with pytest.raises(ValueError):
        await store.leases.hold(ONE, claims, ttl_s)


async def test_a_thousand_claims_are_one_call(store: Store) -> None:
    claims = [Claim(f"site{number}", 0, 2, 5) for number in range(CLAIMS_PER_CALL)]
    assert await store.leases.hold(ONE, claims, TTL_S) == [Lease(2, 2)] * CLAIMS_PER_CALL


@pytest.mark.parametrize("store", ["postgres"], indirect=True)
async def test_a_sweep_forgets_what_is_void_and_nothing_else(store: Store) -> None:
    assert isinstance(store.leases, PostgresLeases) and store.database is not None
    by_database_time = PostgresLeases(database=store.database)
    await store.leases.hold(ONE, [Claim("old", 0, 1, 1)], TTL_S)  # its clock stands in the past
    await by_database_time.hold(ONE, [Claim("new", 0, 1, 1), Claim("none", 0, 0, 1)], TTL_S)
    await store.leases.sweep()
    async with store.database.connection() as connection:
        rows: list[Any] = await connection.fetch("SELECT key FROM connection_lease")
    assert [row["key"] for row in rows] == ["new"]


async def test_a_batch_of_takings_takes_each_for_itself(store: Store) -> None:
    takings = [Taking("b", 1, 2.0, 1), Taking("a", 2, 1.0, 2), Taking("c", 5, 1.0, 2)]
    first = await store.buckets.draw_many(takings)
    assert [one.wait_s for one in first] == [0.0, 0.0, 0.0]
    assert first[0].ahead_s == pytest.approx(0.5, abs=0.01)
    again = await store.buckets.draw_many([*takings[:2], Taking("d", 1, 1.0, 1)])
    assert [one.wait_s for one in again] == [
        pytest.approx(0.5, abs=0.01),
        pytest.approx(2.0, abs=0.01),
        0.0,
    ]
    store.clock.advance(0.51)
    assert (await store.buckets.draw_many(takings[:1]))[0].wait_s == 0.0


async def test_a_batch_and_a_single_taking_share_a_bucket(store: Store) -> None:
    assert await store.buckets.take("k", 3, 1.0, 3) == 0.0
    [drawn] = await store.buckets.draw_many([Taking("k", 1, 1.0, 3)])
    assert drawn == Drawn(pytest.approx(1.0, abs=0.01))
    store.clock.advance(1.01)
    assert (await store.buckets.draw_many([Taking("k", 1, 1.0, 3)]))[0].wait_s == 0.0
    assert await store.buckets.take("k", 1, 1.0, 3) > 0.0


async def test_batches_at_one_instant_take_no_more_than_there_is(store: Store) -> None:
    keys = [f"k{number}" for number in range(20)]
    batches = [
        [Taking(key, 1, 0.001, 5) for key in (keys if number % 2 else reversed(keys))]
        for number in range(10)
    ]
    answers = await asyncio.gather(*(store.buckets.draw_many(batch) for batch in batches))
    taken = [one for batch in answers for one in batch if one.wait_s == 0.0]
    assert len(taken) == 5 * len(keys)


@pytest.mark.parametrize(
    "takings", [[Taking("k", 1, 1, 1)] * 2, [Taking("k", -1, 1, 1)], [Taking("k", 1, 0, 1)]]
)
async def test_a_batch_of_nonsense_is_refused(store: Store, takings: list[Taking]) -> None:
    with pytest.raises(ValueError):
        await store.buckets.draw_many(takings)


async def test_no_takings_take_nothing(store: Store) -> None:
    assert await store.buckets.draw_many([]) == []
