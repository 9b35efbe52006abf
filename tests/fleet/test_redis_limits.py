"""The contract of limits on Redis: buckets and batches of takings."""

import asyncio
from collections.abc import AsyncIterator

import contract.test_ratelimit as contract
import pytest
from contract_cases import cases_of

from mailyard.core.clock import ManualClock
from mailyard.core.errors import RateLimited
from mailyard.ratelimit.adapters.redis import TAKINGS_PER_CALL, RedisRateLimit
from mailyard.ratelimit.policy import Policies, shipped
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


# Policies by name, shared by two processes -------------------------------------------------------


@pytest.fixture
async def two(redis_url: str, link: RedisLink, clock: ManualClock) -> AsyncIterator[list[Policies]]:
    """The shipped policies in two processes, by one clock."""
    other = RedisLink(parse_address(redis_url), call_s=10.0)
    await other.open()
    yield [
        Policies(book=shipped(), limits=RedisRateLimit(link=one, clock=clock))
        for one in (link, other)
    ]
    await other.close()


async def spend(two: list[Policies], name: str, subject: str, action: str = "") -> int:
    """How many actions both processes may begin now, by turns, until one is refused."""
    for count in range(100_000):
        if await two[count % 2].take(name, subject, action) > 0.0:
            return count
    raise AssertionError("no limit")


async def test_a_person_makes_a_thousand_requests_an_hour_in_the_whole_fleet(
    two: list[Policies], clock: ManualClock
) -> None:
    made = await spend(two, "general", "ada@example.org")
    assert 199 <= made <= 200, "so many at once"
    for _ in range(59):
        clock.advance(60)
        made += await spend(two, "general", "ada@example.org")
    assert 980 <= made <= 1_000, "and no more than the hour has"
    assert await two[0].take("general", "bob@example.org") == 0.0, "another person has his own"
    with pytest.raises(RateLimited, match="1000 in 3600 s"):
        await two[1].admit("general", "ada@example.org")


@pytest.mark.parametrize(
    ("action", "burst"), [("messages.send", 6), ("messages.get", 120), ("history.list", 300)]
)
async def test_gmails_actions_cost_what_google_says(
    two: list[Policies], clock: ManualClock, action: str, burst: int
) -> None:
    made = await spend(two, "gmail", "ada@gmail.test", action)
    assert burst - 1 <= made <= burst  # the last one by a rounding of the time
    cost = two[0].policy("gmail").units_of(action)
    for _ in range(11):
        clock.advance(5)
        made += await spend(two, "gmail", "ada@gmail.test", action)
    assert 0.9 * 6_000 <= made * cost <= 6_000, "units of one account in 55 of 60 seconds"
    assert await two[1].take("gmail", "bob@gmail.test", action) == 0.0


async def test_all_accounts_of_a_google_project_share_its_units(two: list[Policies]) -> None:
    made = 0
    for account in range(200):
        got = await spend(two, "gmail", f"{account}@gmail.test", "messages.send")
        made += got
        if got == 0:
            break
    # 60,000 units at once, of which a message takes 100; what an account was refused counts too.
    assert 500 <= made <= 600


async def test_a_mailbox_of_graph_has_ten_thousand_requests_in_ten_minutes(
    two: list[Policies], clock: ManualClock
) -> None:
    made = await spend(two, "graph", "ada@outlook.test")
    assert 999 <= made <= 1_000
    for _ in range(19):
        clock.advance(30)
        made += await spend(two, "graph", "ada@outlook.test")
    assert 9_500 <= made <= 10_000
