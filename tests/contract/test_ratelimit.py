"""The rate limiter's contract: the adapters keep the same rule."""

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailyard.core.clock import ManualClock
from mailyard.ratelimit.adapters.memory import MemoryRateLimit
from mailyard.ratelimit.adapters.postgres import PostgresRateLimit
from mailyard.ratelimit.ratelimit import RateLimit, gcra
from mailyard.storage.database import Database


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["memory", "postgres"])
def limit(
    request: pytest.FixtureRequest, clock: ManualClock, database: Database
) -> Iterator[RateLimit]:
    if request.param == "memory":
        yield MemoryRateLimit(clock=clock)
    else:
        yield PostgresRateLimit(database=database, clock=clock)


async def test_a_fresh_bucket_holds_its_burst(limit: RateLimit) -> None:
    assert [await limit.take("k", 1, 2.0, 3) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert await limit.take("k", 1, 2.0, 3) == pytest.approx(0.5, abs=0.01)


async def test_a_drawing_says_when_the_bucket_is_full_again(
    limit: RateLimit, clock: ManualClock
) -> None:
    first = await limit.draw("k", 1, 2.0, 4)
    assert (first.wait_s, first.ahead_s) == (0.0, pytest.approx(0.5, abs=0.01))
    assert (await limit.draw("k", 3, 2.0, 4)).ahead_s == pytest.approx(2.0, abs=0.01)
    refused = await limit.draw("k", 1, 2.0, 4)
    assert refused.wait_s == pytest.approx(0.5, abs=0.01)
    clock.advance(3600)
    assert (await limit.draw("k", 1, 2.0, 4)).ahead_s == pytest.approx(0.5, abs=0.01)


async def test_waiting_as_told_is_enough(limit: RateLimit, clock: ManualClock) -> None:
    assert await limit.take("k", 4, 2.0, 4) == 0.0
    wait_s = await limit.take("k", 3, 2.0, 4)
    assert wait_s == pytest.approx(1.5, abs=0.01)
    clock.advance(wait_s - 0.1)
    assert await limit.take("k", 3, 2.0, 4) > 0.0
    clock.advance(0.11)
    assert await limit.take("k", 3, 2.0, 4) == 0.0


async def test_a_refusal_takes_nothing(limit: RateLimit) -> None:
    assert await limit.take("k", 2, 1.0, 3) == 0.0
    for _ in range(5):
        assert await limit.take("k", 2, 1.0, 3) > 0.0
    assert await limit.take("k", 1, 1.0, 3) == 0.0


async def test_a_batch_above_the_burst_goes_from_a_full_bucket(
    limit: RateLimit, clock: ManualClock
) -> None:
    assert await limit.take("k", 10, 1.0, 5) == 0.0
    assert await limit.take("k", 1, 1.0, 5) == pytest.approx(6.0, abs=0.01)
    clock.advance(6.0)
    assert await limit.take("k", 1, 1.0, 5) == 0.0


async def test_keys_have_buckets_of_their_own(limit: RateLimit) -> None:
    assert await limit.take("a", 1, 1.0, 1) == 0.0
    assert await limit.take("b", 1, 1.0, 1) == 0.0
    assert await limit.take("a", 1, 1.0, 1) > 0.0


async def test_an_idle_bucket_fills_to_its_burst_and_no_further(
    limit: RateLimit, clock: ManualClock
) -> None:
    assert await limit.take("k", 1, 1.0, 2) == 0.0
    clock.advance(3600)
    taken = [await limit.take("k", 1, 1.0, 2) for _ in range(3)]
    assert [wait == 0.0 for wait in taken] == [True, True, False]


@pytest.mark.parametrize(("amount", "per_s", "burst"), [(-1, 1, 1), (1, 0, 1), (1, 1, 0)])
async def test_nonsense_is_refused(
    limit: RateLimit, amount: float, per_s: float, burst: float
) -> None:
    with pytest.raises(ValueError):
        await limit.take("k", amount, per_s, burst)


async def test_processes_share_a_bucket(database: Database) -> None:
    first, second = (PostgresRateLimit(database=database) for _ in range(2))
    taken = await asyncio.gather(
        *(limit.take("k", 1, 0.001, 10) for limit in (first, second) for _ in range(20))
    )
    assert sum(wait == 0.0 for wait in taken) == 10


async def test_a_sweep_forgets_full_buckets_only(database: Database) -> None:
    limit = PostgresRateLimit(database=database)
    await limit.take("deep", 100, 0.01, 100)
    await PostgresRateLimit(database=database, clock=ManualClock()).take("old", 1, 1.0, 1)
    await limit.sweep()
    async with database.connection() as connection:
        rows = await connection.fetch("SELECT key FROM rate_bucket")
    assert [row["key"] for row in rows] == ["deep"]


@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.floats(0, 3), st.integers(1, 5)), max_size=60),
    st.sampled_from([0.5, 2.0, 10.0]),
    st.integers(5, 10),
)
def test_no_window_takes_more_than_burst_and_rate(
    steps: list[tuple[float, int]], per_s: float, burst: int
) -> None:
    """GCRA's promise: in any span of t seconds at most burst + t * rate."""
    now_s, tat_s = 0.0, 0.0
    takings: list[tuple[float, int]] = []
    for pause_s, amount in steps:
        now_s += pause_s
        tat_s, wait_s = gcra(tat_s, now_s, amount, per_s, burst)
        if wait_s == 0.0:
            takings.append((now_s, amount))
    for first, (began_s, _) in enumerate(takings):
        total = 0
        for at_s, amount in takings[first:]:
            total += amount
            assert total <= burst + (at_s - began_s) * per_s + 1e-6
