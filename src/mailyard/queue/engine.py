"""The port of the queue. Every engine passes `tests/contract/test_queue_core.py` and `_rescue.py`.

The contract (DESIGN section 6): at least once; an enqueue is durable when it returns, or commits
with the caller's transaction; a completion under a stale token changes nothing and says so. All
calls take batches.
"""

from collections.abc import Sequence
from enum import Flag, auto
from typing import Any, Protocol
from uuid import UUID

from mailyard.queue.job import DeadJob, Depth, KeyPolicy, LeasedJob, NewJob


class Capability(Flag):
    """What an engine can do beyond the core. Settings refuse a lane that needs what it lacks."""

    TRANSACTIONAL = auto()  # enqueue and complete inside the caller's transaction
    PRIORITIES = auto()
    TENANT_TURNS = auto()
    KEY_LIMITS = auto()  # rate and concurrency per limit_key
    UNIQUE = auto()
    DELAYS = auto()
    PAUSE = auto()


ALL_CAPABILITIES = (
    Capability.TRANSACTIONAL
    | Capability.PRIORITIES
    | Capability.TENANT_TURNS
    | Capability.KEY_LIMITS
    | Capability.UNIQUE
    | Capability.DELAYS
    | Capability.PAUSE
)

KAFKA_CAPABILITIES = (
    Capability.TRANSACTIONAL | Capability.UNIQUE | Capability.DELAYS | Capability.PAUSE
)


class Waiting(Protocol):
    """Somebody who waits for a topic of the bus."""

    async def wait(self, timeout_s: float) -> bool: ...

    def heard(self) -> bool: ...

    def close(self) -> None: ...


class WakeUps(Protocol):
    """What the queue needs of the bus (`bus/bus.py` fits)."""

    def announce(self, topic: str) -> None: ...

    def subscribe(self, topic: str) -> Waiting: ...


def topic_of(queue: str) -> str:
    """The bus topic that is announced when `queue` has something new."""
    return f"queue:{queue}"


class Engine(Protocol):
    """A durable queue. `tx`: an open transaction of the same database, where it can join one."""

    capabilities: Capability

    async def enqueue(self, jobs: Sequence[NewJob], tx: Any = None) -> list[int | None]:
        """Add jobs; the ids in order, None where a unique key already stands. One statement."""
        ...

    def announce(self, queues: Sequence[str]) -> None:
        """Wake up who waits for `queues`, when a transaction with an enqueue has committed.

        An engine does so by itself; a caller who knows the instant of its commit is faster.
        """
        ...

    async def lease(
        self,
        queues: Sequence[str],
        limit: int,
        wait_s: float,
        worker: str,
        suspects: bool = True,
    ) -> list[LeasedJob]:
        """Take up to `limit` due jobs, waiting up to `wait_s` for the first. Tenants take turns.

        A suspect is a job whose worker died: it comes alone, so that a job that kills its worker
        takes no neighbours along; with `suspects` False it waits.
        """
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
        """Give jobs back, due in `delay_s`. One whose attempts are used up is buried instead.

        The worker lives to say so: what was a suspect is none any more.
        """
        ...

    async def release(
        self, jobs: Sequence[LeasedJob], delay_s: float = 0.0, tx: Any = None
    ) -> set[int]:
        """Give jobs back unworked, due in `delay_s` (a drain: at once), the attempt not counted."""
        ...

    async def bury(self, jobs: Sequence[LeasedJob], error: str, tx: Any = None) -> set[int]:
        """Dead-letter jobs, with the reason. They wait for redrive."""
        ...

    async def rescue(self) -> int:
        """Put jobs of dead workers back, burying those that have killed too many. How many.

        What was buried so gets its second chances here: JOB_SECOND_CHANCES_S after each burial, at
        most doubled, it is back as a suspect that has one crash already.
        """
        ...

    async def is_leased(self, workspace_id: UUID | None, queue: str, payload: bytes) -> bool:
        """Whether a worker holds a job of `queue` with just this payload, under a lease that lives.

        Looks at every job that is held: for a person's question, not for a program's loop.
        """
        ...

    async def depth(self, queues: Sequence[str]) -> list[Depth]:
        """Depth of each queue, from counters."""
        ...

    async def pause(self, queue: str, tx: Any = None) -> None:
        """Nothing more of `queue` is leased, what is leased goes on."""
        ...

    async def resume(self, queue: str, tx: Any = None) -> None: ...

    async def paused(self) -> set[str]:
        """The queues that are paused."""
        ...

    async def limit_keys(self, queue: str, policy: KeyPolicy) -> None:
        """Set what `queue` allows the jobs of one limit_key. `KeyPolicy()` lifts the limits."""
        ...

    async def list_dead(
        self, workspace_id: UUID | None, queue: str | None, before: int | None, limit: int
    ) -> list[DeadJob]:
        """Buried jobs of a workspace (None: of no workspace), newest id first, below `before`."""
        ...

    async def redrive(
        self, workspace_id: UUID | None, ids: Sequence[int], tx: Any = None
    ) -> set[int]:
        """Put buried jobs back into their lines as new; the ids of those that went.

        One whose unique key stands again meanwhile stays buried.
        """
        ...

    async def discard(
        self, workspace_id: UUID | None, ids: Sequence[int], tx: Any = None
    ) -> set[int]:
        """Remove buried jobs for good; the ids of those that went."""
        ...
