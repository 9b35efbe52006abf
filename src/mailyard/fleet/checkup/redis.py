"""What `mailyard doctor` looks for in Redis: is it there, does it outlive a server, does it forget
what it should when it is full, is it near."""

import asyncio
from collections.abc import AsyncIterator

from mailyard.core.errors import ConfigurationError
from mailyard.core.limits import MIB
from mailyard.fleet.checkup.finding import Finding, Grade
from mailyard.storage.redis.address import Form, RedisAddress
from mailyard.storage.redis.clients import Client, Driver, SentinelClient
from mailyard.storage.redis.facts import RedisFacts, latency_s, read_facts

OLDEST = 7  # Redis; Valkey began with 7.2
SENTINELS = 3  # fewer cannot agree when one machine is gone
NEAR_S = 0.005
_CALL_S = 2.0
_ALL_S = 15.0
_FORGETS = ("allkeys-lru", "allkeys-lfu", "volatile-lru", "volatile-lfu")


async def check_redis(address: RedisAddress) -> list[Finding]:
    """The findings; the first alone when it does not answer."""
    try:
        client = Driver(address, _CALL_S).client()
    except ConfigurationError as error:
        return [Finding("redis", Grade.BAD, error.message)]
    try:
        async with asyncio.timeout(_ALL_S):
            await client.prove(f"{address.prefix}up:{{up}}:doctor")
            facts = await read_facts(client)
            return [
                _version(address, facts),
                await _failover(address, client, facts),
                _memory(facts),
                _near(await latency_s(client)),
            ]
    except client.errors as error:
        why = str(error) or type(error).__name__
        return [
            Finding(
                "redis",
                Grade.BAD,
                f"{address.shown()}: {why}",
                "start it, or correct MAILYARD_REDIS_URL; until then every process goes by its "
                "own part of the limits",
            )
        ]
    finally:
        await client.close()


def _version(address: RedisAddress, facts: RedisFacts) -> Finding:
    major = facts.version.partition(".")[0]
    if major.isdigit() and int(major) < OLDEST:
        return Finding("redis", Grade.BAD, f"version {facts.version}", "Redis 7 or Valkey 7.2")
    return Finding(
        "redis",
        Grade.GOOD,
        f"{address.shown()}, version {facts.version}, {facts.primaries} primaries, "
        f"{facts.replicas} replicas",
    )


async def _failover(address: RedisAddress, client: Client, facts: RedisFacts) -> Finding:
    """Whether the loss of one machine is mended without people."""
    name = "redis failover"
    if address.form is Form.SINGLE:
        return Finding(
            name,
            Grade.WARN,
            "one server: while it is away every process goes by its own part of the limits",
            "for a fleet use Sentinel or a cluster",
        )
    if facts.least_replicas == 0:
        return Finding(name, Grade.BAD, "a primary has no replica", "give each primary a replica")
    if isinstance(client, SentinelClient):
        return await _sentinels(address, client)
    return Finding(name, Grade.GOOD, f"each primary has {facts.least_replicas} replicas or more")


async def _sentinels(address: RedisAddress, client: SentinelClient) -> Finding:
    name = "redis failover"
    answers = [one async for one in _quorum(address, client)]
    agreed = [place for place, text in answers if text.startswith("OK")]
    if not agreed:
        return Finding(
            name,
            Grade.BAD,
            "; ".join(text for _, text in answers) or "no Sentinel answers",
            "let as many Sentinels run as the quorum and the majority need",
        )
    if len(answers) < SENTINELS or len(agreed) < len(answers):
        return Finding(
            name,
            Grade.WARN,
            f"of {len(address.hosts)} Sentinels named {len(answers)} answer",
            f"name {SENTINELS} or more, on machines of their own, in MAILYARD_REDIS_URL",
        )
    return Finding(name, Grade.GOOD, f"{len(agreed)} Sentinels agree: {answers[0][1]}")


async def _quorum(address: RedisAddress, client: SentinelClient) -> AsyncIterator[tuple[str, str]]:
    for place, answer in await client.ask_sentinels("SENTINEL", "CKQUORUM", address.name):
        text = answer.decode() if isinstance(answer, bytes) else str(answer)
        yield place, "OK" if answer is True else text


def _memory(facts: RedisFacts) -> Finding:
    name = "redis memory"
    used = f"{facts.memory_bytes // MIB} of {facts.memory_max_bytes // MIB} MB used"
    if not facts.memory_limited:
        return Finding(
            name,
            Grade.WARN,
            f"no maxmemory: {used} of the machine",
            "set maxmemory, and maxmemory-policy allkeys-lru",
        )
    if facts.policy not in _FORGETS:
        return Finding(
            name,
            Grade.WARN,
            f"{used}, maxmemory-policy {facts.policy}: when it is full nothing can be written",
            "set maxmemory-policy allkeys-lru: what is in it may all be forgotten",
        )
    full = facts.memory_share > 0.8
    return Finding(
        name,
        Grade.WARN if full else Grade.GOOD,
        f"{used}, {facts.policy}, {facts.evictions} keys evicted",
        "raise maxmemory: buckets of limits are evicted with the rest" if full else "",
    )


def _near(seconds: float) -> Finding:
    near = seconds < NEAR_S
    return Finding(
        "redis latency",
        Grade.GOOD if near else Grade.WARN,
        f"{seconds * 1000:.1f} ms a round trip",
        "" if near else "put it beside the processes: every limited request asks it",
    )
