"""Settles what handlers have finished, many jobs a statement.

While one statement is under way the next results gather, so the busier the worker the larger the
groups. When the database is away the results wait and are sent again: a job stays held, and its
lease is prolonged, until its result is stored or the lease is lost.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from random import Random

import structlog

from mailyard.core.backoff import Backoff
from mailyard.core.errors import Unavailable
from mailyard.core.limits import LEASE_S
from mailyard.observe.metrics import JOBS
from mailyard.queue.engine import Engine
from mailyard.queue.job import LeasedJob

_RECONNECT = Backoff(first_s=0.1, cap_s=2.0)
_HOPELESS = 10  # failures in a row, the database not being away
_WAITING_JOBS = 4_000  # with more results unstored, nothing more is leased
_SETTLE_JOBS = 2_000  # the most that one statement settles

_LOG = structlog.get_logger(__name__)


class Settler:
    """The jobs that this worker holds, and the results that are not stored yet."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.held: dict[int, LeasedJob] = {}
        self._ending: set[int] = set()
        self._completed: list[LeasedJob] = []
        self._others: list[
            tuple[str, Sequence[LeasedJob], Callable[[Sequence[LeasedJob]], Awaitable[set[int]]]]
        ] = []
        self.calm = asyncio.Event()  # few results wait: lanes may lease
        self.calm.set()
        self._something = asyncio.Event()
        self._nothing = asyncio.Event()
        self._nothing.set()
        self._random = Random()

    def hold(self, job: LeasedJob) -> None:
        """From now on the heartbeat prolongs this lease."""
        self.held[job.id] = job
        self._ending.discard(job.id)  # of an earlier lease of the same job

    def ending(self, jobs: Iterable[LeasedJob]) -> None:
        """A statement that settles these is about to go, or waits: it will say whose they were."""
        self._ending.update([job.id for job in jobs])

    def lost(self, job: LeasedJob) -> None:
        """The heartbeat found no lease: the job belongs to somebody else now.

        Or it has ended while the heartbeat was on its way, and nobody has lost anything.
        """
        if self.held.get(job.id) is job and job.id not in self._ending:
            del self.held[job.id]
            JOBS.labels(job.queue, "lost").inc()
            _LOG.warning("lease lost", job=job.id, kind=job.kind, queue=job.queue)

    def let_go(self, jobs: Iterable[LeasedJob]) -> None:
        """These are settled: no heartbeat any more."""
        for job in jobs:
            if self.held.get(job.id) is job:
                del self.held[job.id]
                self._ending.discard(job.id)

    def complete(self, jobs: Sequence[LeasedJob]) -> None:
        """Complete `jobs` soon."""
        if jobs:
            self.ending(jobs)
            self._completed.extend(jobs)
            if len(self._completed) > _WAITING_JOBS:
                self.calm.clear()
            self._wake()

    def retry(self, jobs: Sequence[LeasedJob], delay_s: float, error: str) -> None:
        """Give `jobs` back soon, due in `delay_s`."""
        self._later("retried", jobs, lambda these: self.engine.retry(these, delay_s, error))

    def bury(self, jobs: Sequence[LeasedJob], error: str) -> None:
        """Dead-letter `jobs` soon."""
        self._later("buried", jobs, lambda these: self.engine.bury(these, error))

    def release(self, jobs: Sequence[LeasedJob], delay_s: float = 0.0) -> None:
        """Give `jobs` back unworked soon, due in `delay_s`."""
        self._later("released", jobs, lambda these: self.engine.release(these, delay_s))

    async def run(self) -> None:
        """Store results until cancelled."""
        failures = 0
        while True:
            await self._something.wait()
            self._something.clear()
            try:
                await self._flush()
                failures = 0
            except Exception as error:
                # Away, out of disk, a deadlock: whatever it is, the lease guards the job and the
                # result is sent again.
                failures += 1
                _LOG.warning("results wait", error=str(error), failures=failures)
                if failures >= _HOPELESS and not isinstance(error, Unavailable):
                    self._give_up()
                await asyncio.sleep(_RECONNECT.delay_s(failures, self._random))
                self._something.set()

    def _give_up(self) -> None:
        """The first group cannot be stored: let its leases run out, that others are not held up."""
        if self._completed:
            jobs: Sequence[LeasedJob] = self._completed[:_SETTLE_JOBS]
            del self._completed[:_SETTLE_JOBS]
            self.calm.set()
        elif self._others:
            _, jobs, _ = self._others.pop(0)
        else:
            return
        _LOG.error("results given up", jobs=[job.id for job in jobs][:20])
        self.let_go(jobs)

    async def finish(self) -> None:
        """Wait until every result is stored, at most as long as the leases hold."""
        try:
            async with asyncio.timeout(LEASE_S):
                await self._nothing.wait()
        except TimeoutError:
            _LOG.error("results given up", jobs=len(self._completed))

    async def _flush(self) -> None:
        while self._completed or self._others:
            if self._completed:
                jobs, self._completed = (
                    self._completed[:_SETTLE_JOBS],
                    self._completed[_SETTLE_JOBS:],
                )
                try:
                    done = await self.engine.complete(jobs)
                except BaseException:
                    self._completed = jobs + self._completed
                    raise
                self._count("completed", jobs, done)
                if len(self._completed) <= _WAITING_JOBS:
                    self.calm.set()
            if self._others:
                outcome, these, settle = self._others[0]
                done = await settle(these)
                self._others.pop(0)
                self._count(outcome, these, done)
        self._nothing.set()

    def _count(self, outcome: str, jobs: Sequence[LeasedJob], done: set[int]) -> None:
        self.let_go(jobs)
        counts: dict[tuple[str, str], int] = {}
        for job in jobs:
            key = (job.queue, outcome if job.id in done else "lost")
            counts[key] = counts.get(key, 0) + 1
        for (queue, what), count in counts.items():
            JOBS.labels(queue, what).inc(count)

    def _later(
        self,
        outcome: str,
        jobs: Sequence[LeasedJob],
        settle: Callable[[Sequence[LeasedJob]], Awaitable[set[int]]],
    ) -> None:
        if jobs:
            self.ending(jobs)
            self._others.append((outcome, jobs, settle))
            self._wake()

    def _wake(self) -> None:
        self._nothing.clear()
        self._something.set()
