"""The port of the queue. Every engine passes `tests/contract/test_queue_core.py`.

The contract (DESIGN section 6): at least once; an enqueue is durable when it returns, or commits
with the caller's transaction; a completion under a stale token changes nothing and says so. All
calls take batches.
"""

from collections.abc import Sequence
from enum import Flag, auto
from typing import Any, Protocol

from mailyard.queue.job import Depth, LeasedJob, NewJob


class Capability(Flag):
    """What an engine can do beyond the core. Settings refuse a lane whose needs its engine lacks."""

    TRANSACTIONAL = auto()  # enqueue and complete inside the caller's transaction
    PRIORITIES = auto()
    TENANT_TURNS = auto()
    KEY_LIMITS = auto()  # rate and concurrency per limit_key
    UNIQUE = auto()
    DELAYS = auto()
    PAUSE = auto()


class Engine(Protocol):
    """A durable queue. `tx` is an open transaction of the same database, where that is a capability."""

    capabilities: Capability

    async def enqueue(self, jobs: Sequence[NewJob], tx: Any = None) -> list[int | None]:
        """Add jobs; the ids in order, None where a unique key already stands. One statement."""
        ...

    async def lease(
        self, queues: Sequence[str], limit: int, wait_s: float, worker: str
    ) -> list[LeasedJob]:
        """Take up to `limit` due jobs, waiting up to `wait_s` for the first. Tenants take turns."""
        ...

    async def extend(self, jobs: Sequence[LeasedJob]) -> set[int]:
        """Heartbeat: prolong the leases; the ids of those that are still the caller's."""
        ...

    async def complete(self, jobs: Sequence[LeasedJob], tx: Any = None) -> set[int]:
        """Finish jobs; the ids that were still the caller's. The rest belong to somebody else."""
        ...

    async def retry(
        self, jobs: Sequence[LeasedJob], delay_s: float, error: str, tx: Any = None
    ) -> set[int]:
        """Give jobs back, due in `delay_s`. One whose attempts are used up is buried instead."""
        ...

    async def release(self, jobs: Sequence[LeasedJob]) -> set[int]:
        """Give jobs back unworked (drain): due at once, the attempt not counted."""
        ...

    async def bury(self, jobs: Sequence[LeasedJob], error: str, tx: Any = None) -> set[int]:
        """Dead-letter jobs, with the reason. They wait for redrive."""
        ...

    async def rescue(self) -> int:
        """Put jobs of dead workers back, burying those that have killed too many. How many."""
        ...

    async def depth(self, queues: Sequence[str]) -> list[Depth]:
        """Depth of each queue, from counters."""
        ...
