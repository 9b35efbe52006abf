"""The contract of limits on Redis: buckets and batches of takings."""

import asyncio

import contract.test_ratelimit as contract
import pytest
from contract_cases import cases_of

from mailyard.core.clock import ManualClock
from mailyard.ratelimit.adapters.redis import TAKINGS_PER_CALL, RedisRateLimit
from mailyard.ratelimit.ratelimit import Taking
from mailyard.storage.redis.address import parse_address
from mailyard.storage.redis.link import RedisLink
from mailyard.storage.redis.script import command


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def limit(link: RedisLink, clock: ManualClock) -> RedisRateLimit:
    return RedisRateLimit(link=link, clock=clock)


globals().update(cases_of(contract, "limit"))


async def test_processes_share_a_bucket_by_redis_time(redis_url: str, link: RedisLink) -> None:
    other = RedisLink(parse_address(redis_url), call_s=10.0)
    await other.open()
    limits = [RedisRateLimit(link=one) for one in (link, other)]
    taken = await asyncio.gather(
        *(limit.take("k", 1, 0.001, 10) for limit in limits for _ in range(200))
    )
    await other.close()
    assert sum(wait_s == 0.0 for wait_s in taken) == 10


async def test_many_takings_are_few_calls(link: RedisLink) -> None:
    limit = RedisRateLimit(link=link)
    takings = [Taking(f"k{number}", 1, 1.0, 2) for number in range(3 * TAKINGS_PER_CALL)]
    drawn = await limit.draw_many(takings)
    assert {one.wait_s for one in drawn} == {0.0}
    alone = await asyncio.gather(*(limit.draw(f"k{number}", 2, 1.0, 2) for number in range(500)))
    assert all(0.5 < one.wait_s <= 1.0 for one in alone)


async def test_what_is_owed_is_taken_unasked(limit: RedisRateLimit) -> None:
    taking = Taking("k", 1, 1.0, 3)
    [first] = await limit.draw_owing([taking], [1.5])
    assert (first.wait_s, first.ahead_s) == (0.0, pytest.approx(2.5, abs=0.01))
    [refused] = await limit.draw_owing([taking], [4.0])
    assert refused.wait_s == pytest.approx(4.5, abs=0.01)


async def test_a_server_that_has_forgotten_the_script_is_taught_again(link: RedisLink) -> None:
    limit = RedisRateLimit(link=link)
    assert await limit.take("k", 1, 1.0, 5) == 0.0
    for _, answer in await link.client().ask("SCRIPT", "FLUSH"):
        assert answer
    drawn = await limit.draw_many([Taking(f"k{number}", 1, 1.0, 5) for number in range(100)])
    assert {one.wait_s for one in drawn} == {0.0}


async def test_a_bucket_leaves_redis_when_it_is_full(link: RedisLink) -> None:
    limit = RedisRateLimit(link=link)
    await limit.take("k", 1, 0.1, 5)
    [left_ms] = await link.run([command("PTTL", limit._name("k"))])
    assert 10_000 < left_ms <= 20_001
