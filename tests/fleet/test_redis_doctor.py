"""What `mailyard doctor` says of a Redis, and what it says of itself in figures."""

from pathlib import Path

import redis_servers
from running_platform import free_ports

from mailyard.fleet.checkup.finding import Grade
from mailyard.fleet.checkup.redis import check_redis
from mailyard.observe.metrics import REGISTRY
from mailyard.storage.redis.address import parse_address
from mailyard.storage.redis.facts import read_facts
from mailyard.storage.redis.link import RedisLink


async def examine(url: str) -> dict[str, tuple[Grade, str]]:
    return {one.check: (one.grade, one.found) for one in await check_redis(parse_address(url))}


async def test_each_form_is_judged_by_what_it_outlives(redis_urls: dict[str, str]) -> None:
    alone = await examine(redis_urls["single"])
    assert alone["redis"][0] is Grade.GOOD
    assert alone["redis failover"][0] is Grade.WARN
    guarded = await examine(redis_urls["sentinel"])
    grade, found = guarded["redis failover"]
    assert (grade, "3 Sentinels agree" in found) == (Grade.GOOD, True)
    many = await examine(redis_urls["cluster"])
    assert "3 primaries" in many["redis"][1]
    assert many["redis failover"] == (Grade.BAD, "a primary has no replica")
    assert alone["redis latency"][0] in (Grade.GOOD, Grade.WARN)


async def test_a_redis_that_cannot_forget_or_is_not_there_is_named(tmp_path: Path) -> None:
    with redis_servers.single(tmp_path) as server:
        url = f"redis://127.0.0.1:{server.port}"
        assert (await examine(url))["redis memory"][0] is Grade.WARN
        server.ask("CONFIG", "SET", "maxmemory", "100mb")
        grade, found = (await examine(url))["redis memory"]
        assert (grade, "noeviction" in found) == (Grade.WARN, True)
        server.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        assert (await examine(url))["redis memory"][0] is Grade.GOOD
    [(grade, found)] = (await examine(f"redis://127.0.0.1:{free_ports(1)[0]}")).values()
    assert grade is Grade.BAD and found.startswith("single 127.0.0.1:")


async def test_figures_are_those_of_all_primaries(link: RedisLink, redis_url: str) -> None:
    facts = await read_facts(link.client())
    assert facts.primaries == (3 if "cluster" in redis_url else 1)
    assert facts.replicas == (2 if "sentinel" in redis_url else 0)
    assert 0 < facts.memory_bytes < facts.memory_max_bytes
    assert REGISTRY.get_sample_value("mailyard_redis_memory_bytes") == facts.memory_bytes
