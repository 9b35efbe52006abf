"""The worker: takes jobs from several lanes, runs their handlers, settles the results.

Each lane (queue) has a loop of its own that leases, so a busy lane never starves another. Each
handler has `concurrency` slots; a slot takes up to `batch_size` jobs and runs the handler on them.
Jobs are leased a little ahead of the slots, in proportion to how fast they have lately been done.
Finished jobs gather while the last statement is under way and are settled together. One heartbeat
prolongs every lease that is held, so an event loop that stands still, or a dead process, gives its
jobs to others, and a slow handler does not.
"""

import asyncio
from collections.abc import Sequence

import structlog

from mailyard.core.limits import HEARTBEAT_S
from mailyard.observe.metrics import WORKER_SLOTS
from mailyard.queue.batch import Handler
from mailyard.queue.engine import Engine
from mailyard.queue.lane import Lane
from mailyard.queue.settle import Settler

_LOG = structlog.get_logger(__name__)


class Worker:
    """Runs `handlers` until drained. One a process; `name` shows in the leases."""

    def __init__(self, *, engine: Engine, handlers: Sequence[Handler], name: str) -> None:
        self.name = name
        self.stopping = asyncio.Event()
        self._engine = engine
        self._settler = Settler(engine)
        by_queue: dict[str, list[Handler]] = {}
        for handler in handlers:
            by_queue.setdefault(handler.queue, []).append(handler)
        for queue, own in by_queue.items():
            WORKER_SLOTS.labels(queue).set(sum(handler.concurrency for handler in own))
        self._lanes = [
            Lane(queue, own, engine, self._settler, self.stopping, name)
            for queue, own in by_queue.items()
        ]

    async def run(self) -> None:
        """Work until `drain` was called and everything in hand is settled."""
        settling = asyncio.create_task(self._settler.run(), name="settle")
        beating = asyncio.create_task(self._beat(), name="heartbeat")
        try:
            async with asyncio.TaskGroup() as lanes:
                for lane in self._lanes:
                    lanes.create_task(lane.run(), name=f"lane-{lane.queue}")
            await self._settler.finish()
        finally:
            for task in (settling, beating):
                task.cancel()
            await asyncio.gather(settling, beating, return_exceptions=True)

    def drain(self) -> None:
        """Take nothing more; `run` ends when the handlers have. The unbegun is given back."""
        self.stopping.set()
        self._settler.calm.set()  # a lane that waits for results to be stored shall not wait on
        for lane in self._lanes:
            lane.wake()

    @property
    def held(self) -> int:
        """How many leased jobs are in this process now."""
        return len(self._settler.held)

    async def _beat(self) -> None:
        """Prolong what is held, then look for the jobs of workers that do so no more."""
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            held = list(self._settler.held.values())
            try:
                kept = await self._engine.extend(held)
                await self._engine.rescue()
            except Exception as error:  # away, or whatever: the next beat comes in time
                _LOG.warning("heartbeat missed", error=str(error), held=len(held))
                continue
            for job in held:
                if job.id not in kept:
                    self._settler.lost(job)
