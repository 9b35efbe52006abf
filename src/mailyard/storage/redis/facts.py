"""What Redis says of itself: for metrics, figures and the checkup."""

from dataclasses import dataclass
from time import perf_counter
from typing import Any

from mailyard.observe.metrics import (
    REDIS_EVICTIONS,
    REDIS_HITS,
    REDIS_MEMORY_BYTES,
    REDIS_MEMORY_MAX_BYTES,
    REDIS_MISSES,
)
from mailyard.storage.redis.clients import Client

LOOKS = 20  # of which the middle one is the latency


@dataclass(frozen=True, slots=True)
class RedisFacts:
    """All primaries together. `replicas`: those that follow now; `least_replicas`: of the primary
    that has fewest. `memory_max_bytes`: what it may use, 0: unknown."""

    version: str
    primaries: int
    replicas: int
    least_replicas: int
    memory_bytes: int
    memory_max_bytes: int
    memory_limited: bool
    policy: str
    hits: int
    misses: int
    evictions: int
    clients: int

    @property
    def memory_share(self) -> float:
        return self.memory_bytes / self.memory_max_bytes if self.memory_max_bytes else 0.0


async def read_facts(client: Client) -> RedisFacts:
    """Ask every primary; the answer stands in the metrics too. Raises what the driver raises."""
    answers: list[dict[str, Any]] = [info for _, info in await client.ask("INFO")]
    replicas = [_following(info) for info in answers]
    limits = [int(info.get("maxmemory", 0)) for info in answers]
    facts = RedisFacts(
        version=str(answers[0].get("valkey_version") or answers[0].get("redis_version", "?")),
        primaries=len(answers),
        replicas=sum(replicas),
        least_replicas=min(replicas),
        memory_bytes=_sum(answers, "used_memory"),
        memory_max_bytes=sum(
            limit or int(info.get("total_system_memory", 0))
            for limit, info in zip(limits, answers, strict=True)
        ),
        memory_limited=all(limits),
        policy=str(answers[0].get("maxmemory_policy", "?")),
        hits=_sum(answers, "keyspace_hits"),
        misses=_sum(answers, "keyspace_misses"),
        evictions=_sum(answers, "evicted_keys"),
        clients=_sum(answers, "connected_clients"),
    )
    REDIS_MEMORY_BYTES.set(facts.memory_bytes)
    REDIS_MEMORY_MAX_BYTES.set(facts.memory_max_bytes)
    REDIS_HITS.set(facts.hits)
    REDIS_MISSES.set(facts.misses)
    REDIS_EVICTIONS.set(facts.evictions)
    return facts


async def latency_s(client: Client) -> float:
    """The middle one of some round trips to the slowest primary."""
    times = []
    for _ in range(LOOKS):
        began = perf_counter()
        await client.ask("PING")
        times.append(perf_counter() - began)
    return sorted(times)[LOOKS // 2]


def _following(info: dict[str, Any]) -> int:
    return sum(
        value.get("state") == "online"
        for name, value in info.items()
        if name.startswith("slave") and isinstance(value, dict)
    )


def _sum(answers: list[dict[str, Any]], name: str) -> int:
    return sum(int(info.get(name, 0)) for info in answers)
