"""The contract of caches on Redis, and what is Redis's own in it."""

import contract.test_cache as contract
import pytest
from contract_cases import cases_of

from mailyard.cache.adapters.redis import VALUE_BYTES, RedisCache
from mailyard.core.ids import uuid7
from mailyard.storage.redis.link import RedisLink
from mailyard.storage.redis.script import command


@pytest.fixture
def cache(link: RedisLink) -> RedisCache:
    return RedisCache(link=link)


globals().update(cases_of(contract, "cache"))


async def test_a_value_has_its_time_in_redis(link: RedisLink) -> None:
    workspace = uuid7()
    await RedisCache(link=link).put(workspace, {"a": b"1", "b": bytes(VALUE_BYTES + 1)}, 60)
    assert set(await RedisCache(link=link).get(workspace, ["a", "b"])) == {"a"}
    [left_ms] = await link.run([command("PTTL", link.key("c", workspace.hex, "a"))])
    assert 50_000 < left_ms <= 60_000
    await RedisCache(link=link).put(workspace, {"a": b"1"}, 0)
    assert await RedisCache(link=link).get(workspace, ["a"]) == {}
