"""The contract of leases on Redis; and that its script keeps the same rule as `part_of`."""

from collections.abc import AsyncIterator
from random import Random
from uuid import UUID

import contract.test_leases as contract
import pytest
from contract_cases import cases_of

from mailyard.core.clock import ManualClock
from mailyard.ratelimit.adapters.memory_leases import MemoryLeases
from mailyard.ratelimit.adapters.redis import RedisRateLimit
from mailyard.ratelimit.adapters.redis_leases import RedisLeases
from mailyard.ratelimit.lease import Claim
from mailyard.storage.redis.link import RedisLink


@pytest.fixture
async def store(link: RedisLink) -> AsyncIterator[contract.Store]:
    clock = ManualClock()
    yield contract.Store(
        RedisLeases(link=link, clock=clock),
        RedisLeases(link=link, clock=clock),
        RedisRateLimit(link=link, clock=clock),
        clock,
    )


globals().update(cases_of(contract, "store"))


async def test_the_script_decides_as_the_rule_does(link: RedisLink) -> None:
    random, clock = Random(7), ManualClock()
    ours, rule = RedisLeases(link=link, clock=clock), MemoryLeases(clock=clock)
    holders = [UUID(int=number + 1) for number in range(4)]
    open_now: dict[tuple[UUID, str], int] = {}
    for _ in range(150):
        clock.advance(random.choice([0.0, 0.0, 1.0, 12.0]))
        holder = random.choice(holders)
        claims = []
        for key in ("a", "b", "c"):
            held = open_now.get((holder, key), 0)
            claims.append(Claim(key, random.randint(0, held), random.randint(0, 9), 7))
        expected = await rule.hold(holder, claims, 30.0)
        assert await ours.hold(holder, claims, 30.0) == expected
        for claim, lease in zip(claims, expected, strict=True):
            open_now[holder, claim.key] = lease.held
