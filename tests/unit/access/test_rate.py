"""The API's rate limits, under a clock that stands still."""

import asyncio

import pytest

from mailyard.core.clock import ManualClock
from mailyard.core.errors import RateLimited
from mailyard.ratelimit.adapters.memory import MemoryRateLimit
from mailyard.ratelimit.ratelimit import Drawn
from mailyard.web.api.rate import FleetLimiter, RateLimiter


def test_a_burst_passes_and_the_next_one_is_told_when_to_come() -> None:
    clock = ManualClock()
    limiter = RateLimiter(per_s=10, burst=5, clock=clock.monotonic)
    left = [limiter.take("key").remaining for _ in range(5)]
    assert left == [4, 3, 2, 1, 0]
    with pytest.raises(RateLimited) as caught:
        limiter.take("key")
    assert caught.value.retry_after_s == pytest.approx(0.1)
    clock.advance(0.1)
    assert limiter.take("key").remaining == 0


def test_callers_do_not_share() -> None:
    limiter = RateLimiter(per_s=1, burst=1, clock=ManualClock().monotonic)
    limiter.take("a")
    limiter.take("b")


def test_over_a_long_time_the_rate_holds() -> None:
    clock = ManualClock()
    limiter = RateLimiter(per_s=10, burst=5, clock=clock.monotonic)
    passed = 0
    for _ in range(1000):
        clock.advance(0.01)
        try:
            limiter.take("key")
            passed += 1
        except RateLimited:
            pass
    assert 100 <= passed <= 105


class CountedLimit(MemoryRateLimit):
    """Buckets that count how often they are asked."""

    asked = 0

    async def draw(self, key: str, amount: float, per_s: float, burst: float) -> Drawn:
        self.asked += 1
        await asyncio.sleep(0)  # as a database would
        return await super().draw(key, amount, per_s, burst)


def fleet(
    clock: ManualClock, processes: int, per_s: float, burst: int
) -> tuple[CountedLimit, list[FleetLimiter]]:
    """The shared buckets, and the limiter of each process."""
    limits = CountedLimit(clock=clock)
    return limits, [
        FleetLimiter(limits=limits, per_s=per_s, burst=burst, clock=clock.monotonic)
        for _ in range(processes)
    ]


async def passed(limiter: FleetLimiter, requests: int, caller: str = "key") -> int:
    """How many of as many requests go through."""
    answers = await asyncio.gather(
        *(limiter.take(caller) for _ in range(requests)), return_exceptions=True
    )
    refused = [answer for answer in answers if isinstance(answer, BaseException)]
    assert all(isinstance(answer, RateLimited) for answer in refused)
    return requests - len(refused)


async def test_all_processes_together_let_a_burst_through_and_no_more() -> None:
    _, processes = fleet(ManualClock(), 3, per_s=10, burst=60)
    assert sum([await passed(one, 40) for one in processes]) == 60


async def test_over_a_long_time_the_rate_holds_for_all_processes_together() -> None:
    clock = ManualClock()
    _, processes = fleet(clock, 2, per_s=100, burst=50)
    count = 0
    for _ in range(200):
        clock.advance(0.05)
        count += sum([await passed(one, 10) for one in processes])
    # Ten seconds; a process may hold back a share of five.
    assert 1000 <= count <= 1050


async def test_a_share_is_asked_for_and_not_each_request() -> None:
    limits, (limiter,) = fleet(ManualClock(), 1, per_s=1000, burst=1000)
    assert await passed(limiter, 1000) == 1000
    assert limits.asked == 10


async def test_who_is_refused_is_told_when_to_come_and_costs_nobody_a_question() -> None:
    clock = ManualClock()
    limits, (limiter,) = fleet(clock, 1, per_s=10, burst=5)
    left = [(await limiter.take("key")).remaining for _ in range(5)]
    assert left == [4, 3, 2, 1, 0]
    with pytest.raises(RateLimited) as caught:
        await limiter.take("key")
    assert caught.value.retry_after_s == pytest.approx(0.1)
    asked = limits.asked
    assert await passed(limiter, 100) == 0
    assert limits.asked == asked
    clock.advance(0.1)
    assert (await limiter.take("key")).remaining == 0


async def test_the_end_of_a_bucket_is_given_out_though_a_share_does_not_fit() -> None:
    clock = ManualClock()
    _, (first, second) = fleet(clock, 2, per_s=1000, burst=1000)
    assert await passed(first, 950) == 950
    clock.advance(0.03)
    assert await passed(second, 100) == 30


async def test_callers_of_a_fleet_do_not_share() -> None:
    _, (limiter,) = fleet(ManualClock(), 1, per_s=1, burst=1)
    assert [await passed(limiter, 3, caller) for caller in ("a", "b")] == [1, 1]


async def test_a_bucket_that_was_filled_again_is_open_in_every_process_within_a_second() -> None:
    clock = ManualClock()
    shared, limiters = fleet(clock, processes=3, per_s=0.01, burst=3)
    for limiter in limiters:
        await limiter.take("key")
    for limiter in limiters:
        with pytest.raises(RateLimited) as caught:
            await limiter.take("key")
        assert caught.value.retry_after_s == pytest.approx(100.0)
    clock.advance(0.5)
    await shared.forget(["api:key"])
    clock.advance(0.6)
    for limiter in limiters:
        await limiter.take("key")
