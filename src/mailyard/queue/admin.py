"""What people do with queues: look, pause, resume, and deal with the dead letters."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from mailyard.core.errors import InvalidInput
from mailyard.core.limits import API_PAGE_ITEMS_MAX
from mailyard.queue.engine import Engine
from mailyard.queue.job import LANES, DeadJob, Depth, KeyPolicy


class QueueAdmin:
    """Queues are the platform's; dead letters belong to a workspace. `tx`: as of the engine."""

    def __init__(self, *, engine: Engine) -> None:
        self._engine = engine

    async def depths(self) -> list[Depth]:
        """The depth of every queue, from counters."""
        return await self._engine.depth(LANES)

    async def pause(self, queue: str, tx: Any = None) -> None:
        """Stop leasing from `queue`; what is leased goes on. Raises InvalidInput: no such queue."""
        await self._engine.pause(self._known(queue), tx)

    async def resume(self, queue: str, tx: Any = None) -> None:
        """Go on with `queue`. Raises InvalidInput when there is no such queue."""
        await self._engine.resume(self._known(queue), tx)

    async def paused(self) -> set[str]:
        """The queues that are paused."""
        return await self._engine.paused()

    async def limit_keys(self, queue: str, policy: KeyPolicy) -> None:
        """Set what `queue` allows each limit key. Raises InvalidInput: no such queue."""
        await self._engine.limit_keys(self._known(queue), policy)

    async def list_dead(
        self,
        workspace_id: UUID | None,
        queue: str | None = None,
        before: int | None = None,
        limit: int = 100,
    ) -> list[DeadJob]:
        """A page of the workspace's dead letters, newest first; go on with `before` the last id."""
        if queue is not None:
            self._known(queue)
        if not 1 <= limit <= API_PAGE_ITEMS_MAX:
            raise InvalidInput(f"limit is 1 to {API_PAGE_ITEMS_MAX}", field="limit")
        return await self._engine.list_dead(workspace_id, queue, before, limit)

    async def redrive(
        self, workspace_id: UUID | None, ids: Sequence[int], tx: Any = None
    ) -> set[int]:
        """Put dead letters back into their queues, as new; the ids of those that went."""
        return await self._engine.redrive(workspace_id, ids, tx)

    async def discard(
        self, workspace_id: UUID | None, ids: Sequence[int], tx: Any = None
    ) -> set[int]:
        """Remove dead letters for good; the ids of those that went."""
        return await self._engine.discard(workspace_id, ids, tx)

    def _known(self, queue: str) -> str:
        if queue not in LANES:
            raise InvalidInput(
                f"no queue {queue[:60]!r}; queues: {', '.join(LANES)}", field="queue"
            )
        return queue
