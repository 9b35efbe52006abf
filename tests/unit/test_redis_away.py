"""While Redis is away limits and leases go by parts, and together stay below the limit."""

from collections.abc import Sequence
from random import Random
from uuid import UUID

import pytest

from mailyard.core.clock import ManualClock
from mailyard.ratelimit.adapters.fleet import FleetRateLimit
from mailyard.ratelimit.adapters.fleet_leases import FleetLeases
from mailyard.ratelimit.adapters.memory import MemoryRateLimit
from mailyard.ratelimit.adapters.memory_leases import MemoryLeases
from mailyard.ratelimit.lease import LEASE_RENEW_S, LEASE_TTL_S, Claim, Lease
from mailyard.ratelimit.ratelimit import Drawn, Taking
from mailyard.storage.redis.link import RedisAway

TTL_S = LEASE_TTL_S


class Shared(MemoryRateLimit):
    """The store of all, which may be away; what is owed is taken first."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock=clock)
        self.away = False

    async def draw_owing(self, takings: Sequence[Taking], owed_s: Sequence[float]) -> list[Drawn]:
        if self.away:
            raise RedisAway("away")
        now_s = self._clock.monotonic()
        for taking, owed in zip(takings, owed_s, strict=True):
            if owed:
                full_s = max(now_s, self._tat_s.get(taking.key, now_s))
                self._tat_s[taking.key] = full_s + owed
        return await self.draw_many(takings)


class SharedLeases(MemoryLeases):
    away = False

    async def hold(self, holder: UUID, claims: Sequence[Claim], ttl_s: float) -> list[Lease]:
        if self.away:
            raise RedisAway("away")
        return await super().hold(holder, claims, ttl_s)

    async def release(self, holder: UUID) -> None:
        if self.away:
            raise RedisAway("away")
        await super().release(holder)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def fleet(shared: Shared, clock: ManualClock, processes: int) -> list[FleetRateLimit]:
    return [
        FleetRateLimit(shared=shared, processes=lambda: processes, clock=clock)
        for _ in range(processes)
    ]


async def taken(limit: FleetRateLimit, tries: int, per_s: float, burst: float) -> int:
    waits = [await limit.take("k", 1, per_s, burst) for _ in range(tries)]
    return sum(wait_s == 0.0 for wait_s in waits)


async def test_together_the_parts_are_the_limit(clock: ManualClock) -> None:
    shared = Shared(clock)
    shared.away = True
    limits = fleet(shared, clock, 4)
    assert [await taken(limit, 200, 40.0, 400) for limit in limits] == [100] * 4
    clock.advance(1.0)
    assert [await taken(limit, 200, 40.0, 400) for limit in limits] == [10] * 4


async def test_a_part_begins_as_full_as_the_whole_was_seen(clock: ManualClock) -> None:
    shared = Shared(clock)
    limits = fleet(shared, clock, 4)
    assert [await taken(limit, 75, 40.0, 400) for limit in limits] == [75] * 4
    shared.away = True  # 300 of 400 are used; who drew last knows it best
    assert await taken(limits[3], 200, 40.0, 400) == 25


async def test_what_was_taken_alone_is_owed_afterwards(clock: ManualClock) -> None:
    shared = Shared(clock)
    limits = fleet(shared, clock, 4)
    shared.away = True
    for limit in limits:
        assert await taken(limit, 200, 40.0, 400) == 100
    shared.away = False
    assert [await taken(limit, 200, 40.0, 400) for limit in limits] == [200, 0, 0, 0]
    # The first could not know what the others had taken; all are in debt for it now.
    clock.advance(4.9)
    assert await taken(limits[0], 1, 40.0, 400) == 0
    clock.advance(0.2)
    assert await taken(limits[1], 1, 40.0, 400) == 1


async def test_no_long_outage_lets_more_through_than_rate_and_two_bursts(
    clock: ManualClock,
) -> None:
    """Whatever comes and goes: over the whole time at most the rate, and a burst at each end."""
    random, shared = Random(3), Shared(clock)
    limits = fleet(shared, clock, 3)
    total = 0
    for step in range(600):
        shared.away = 200 <= step < 400
        clock.advance(0.1)
        for _ in range(5):
            wait_s = await random.choice(limits).take("k", random.randint(1, 3), 10.0, 30)
            total += wait_s == 0.0
    assert total <= 60 * 10.0 + 2 * 30


async def test_a_limit_that_is_reset_is_full_here_too(clock: ManualClock) -> None:
    shared = Shared(clock)
    [limit] = fleet(shared, clock, 1)
    assert await taken(limit, 9, 0.001, 5) == 5
    await limit.forget(["k"])
    assert await taken(limit, 9, 0.001, 5) == 5


def workers(shared: SharedLeases, clock: ManualClock, count: int) -> list[FleetLeases]:
    return [
        FleetLeases(shared=shared, place=lambda number=number: (number, count), clock=clock)
        for number in range(count)
    ]


async def test_what_is_held_stays_down_to_the_part_and_nobody_grows_at_once(
    clock: ManualClock,
) -> None:
    shared = SharedLeases(clock=clock)
    pair = workers(shared, clock, 2)
    one, two = UUID(int=1), UUID(int=2)
    assert await pair[0].hold(one, [Claim("a", 0, 10, 10)], TTL_S) == [Lease(10, 10)]
    shared.away = True
    # The second may not open what the first still has open.
    assert await pair[1].hold(two, [Claim("a", 0, 10, 10)], TTL_S) == [Lease(0, 5)]
    assert await pair[0].hold(one, [Claim("a", 10, 10, 10)], TTL_S) == [Lease(10, 5)]
    clock.advance(LEASE_RENEW_S)
    assert await pair[1].hold(two, [Claim("a", 0, 10, 10)], TTL_S) == [Lease(5, 5)]
    assert await pair[0].hold(one, [Claim("a", 5, 10, 10)], TTL_S) == [Lease(5, 5)]


async def test_a_store_that_has_forgotten_gives_nobody_more_than_his_part(
    clock: ManualClock,
) -> None:
    shared = SharedLeases(clock=clock)
    pair = workers(shared, clock, 2)
    one, two = UUID(int=1), UUID(int=2)
    shared.away = True
    for leases, holder in zip(pair, (one, two), strict=True):
        await leases.hold(holder, [Claim("a", 0, 9, 9)], TTL_S)
    clock.advance(LEASE_RENEW_S)
    parts = [
        (await leases.hold(holder, [Claim("a", 0, 9, 9)], TTL_S))[0].held
        for leases, holder in zip(pair, (one, two), strict=True)
    ]
    assert sorted(parts) == [4, 5]
    shared.away = False
    back = [
        (await leases.hold(holder, [Claim("a", part, 9, 9)], TTL_S))[0].held
        for leases, holder, part in zip(pair, (one, two), parts, strict=True)
    ]
    assert back == parts
    await pair[1].release(two)
    clock.advance(LEASE_TTL_S)
    assert await pair[0].hold(one, [Claim("a", parts[0], 9, 9)], TTL_S) == [Lease(9, 9)]


async def test_a_place_with_one_connection_has_one_worker(clock: ManualClock) -> None:
    shared = SharedLeases(clock=clock)
    shared.away = True
    crew = workers(shared, clock, 5)
    for wave in range(2):
        held = [
            await leases.hold(UUID(int=number + 1), [Claim("a", 0, 3, 1)], TTL_S)
            for number, leases in enumerate(crew)
        ]
        assert sum(lease.held for [lease] in held) == wave
        clock.advance(LEASE_RENEW_S)


async def test_who_is_alone_goes_on_at_once(clock: ManualClock) -> None:
    shared = SharedLeases(clock=clock)
    shared.away = True
    [leases] = workers(shared, clock, 1)
    assert await leases.hold(UUID(int=1), [Claim("a", 0, 8, 10)], TTL_S) == [Lease(8, 8)]
    await leases.release(UUID(int=1))
