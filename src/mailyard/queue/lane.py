"""One queue of a worker: leases ahead, deals jobs to its handlers' slots, settles what they did."""

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from random import Random
from time import perf_counter

import structlog

from mailyard.core.backoff import Backoff
from mailyard.core.errors import OutOfReach
from mailyard.observe import trace
from mailyard.observe.metrics import JOB_SECONDS, JOBS
from mailyard.observe.reason import reason_of
from mailyard.queue.batch import RETRY, Batch, Handler, by_attempt, is_hopeless
from mailyard.queue.engine import Engine
from mailyard.queue.job import LeasedJob
from mailyard.queue.settle import Settler

RECONNECT = Backoff(first_s=0.1, cap_s=2.0)

_LEASE_WAIT_S = 1.0  # one question to the bus or the database; also the longest that a drain waits
_SUSPECT_WAIT_S = 0.05  # while one suspect is held: the next of a hundred is not to wait for long
_AHEAD_S = 0.25  # so much work is leased ahead of the slots
_LEASE_JOBS = 1_000  # the most that one statement leases, and that a lane holds ahead
_YIELD_EVERY_S = 0.005  # a slot whose handler never waits lets others run this often
_STRANGERS_S = 30.0  # how long a job waits that this build has no handler for

_LOG = structlog.get_logger(__name__)


class _Slots:
    """One handler's jobs that wait, and its slots that work."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.waiting: deque[LeasedJob] = deque()
        self.idle: deque[asyncio.Future[None]] = deque()

    def wake(self, count: int) -> None:
        """Let up to `count` idle slots look again."""
        while self.idle and count > 0:
            slot = self.idle.popleft()
            if not slot.done():
                slot.set_result(None)
                count -= 1

    def take(self) -> Sequence[LeasedJob]:
        """The next batch; something waits."""
        if self.handler.batch_size == 1:
            return (self.waiting.popleft(),)
        if self.waiting[0].crashes:
            return (self.waiting.popleft(),)  # a suspect takes no neighbours along
        count = min(self.handler.batch_size, len(self.waiting))
        return [self.waiting.popleft() for _ in range(count)]


class Lane:
    """One queue: leases ahead, deals jobs to its handlers' slots."""

    def __init__(
        self,
        queue: str,
        handlers: Sequence[Handler],
        engine: Engine,
        settler: Settler,
        stopping: asyncio.Event,
        worker: str,
    ) -> None:
        self.queue = queue
        self._engine = engine
        self._settler = settler
        self._stopping = stopping
        self._worker = worker
        self._slots = {handler.kind: _Slots(handler) for handler in handlers}
        self._in_slots = max(
            1, sum(each.concurrency * each.batch_size for each in handlers if not each.rare)
        )
        self._gathering = min(handlers, key=lambda handler: handler.gather_s)
        self._held = 0
        self._suspects = 0
        self._pace = _Pace()
        self._room_made = asyncio.Event()
        self._random = Random()

    def wake(self) -> None:
        """Let the loops look again: a drain has begun, or there is room."""
        self._room_made.set()
        if self._stopping.is_set():
            for slots in self._slots.values():
                slots.wake(len(slots.idle))

    async def run(self) -> None:
        """Work until the drain; what was not begun is given back."""
        async with asyncio.TaskGroup() as tasks:
            for slots in self._slots.values():
                for _ in range(slots.handler.concurrency):
                    tasks.create_task(self._work(slots))
            await self._lease_until_drained()
        await self._give_back()

    async def _lease_until_drained(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            room = self._room()
            if room <= 0:
                self._room_made.clear()
                if self._room() <= 0 and not self._stopping.is_set():
                    await self._room_made.wait()
                continue
            if not self._settler.calm.is_set():
                await self._settler.calm.wait()
                continue
            try:
                unsuspected = self._suspects == 0
                wait_s = _LEASE_WAIT_S if unsuspected else _SUSPECT_WAIT_S
                jobs = await self._engine.lease(
                    [self.queue], room, wait_s, self._worker, unsuspected
                )
                failures = 0
            except Exception as error:  # away, or whatever: a lane goes on by itself
                failures += 1
                _LOG.warning("lease failed", queue=self.queue, error=str(error), failures=failures)
                await asyncio.sleep(RECONNECT.delay_s(failures, self._random))
                continue
            await self._deal(jobs)
            if self._gathering.gather_s and 0 < len(jobs) < room:
                await self._gather(jobs)

    async def _gather(self, leased: Sequence[LeasedJob]) -> None:
        """Let more come together behind `leased`; a drain waits for nothing."""
        handler = self._gathering
        share = min(1.0, sum(map(handler.weigh, leased)) / handler.gather_weight)
        with suppress(TimeoutError):
            async with asyncio.timeout(handler.gather_s * share):
                await self._stopping.wait()

    def _room(self) -> int:
        ahead = max(self._in_slots, min(_LEASE_JOBS, int(self._pace.per_s * _AHEAD_S)))
        room = min(ahead - self._held, _LEASE_JOBS)
        # A statement for a handful while many are held costs more than it brings.
        return room if room * 4 >= ahead or self._held == 0 or room >= self._in_slots else 0

    async def _deal(self, jobs: Sequence[LeasedJob]) -> None:
        strangers: list[LeasedJob] = []
        for job in jobs:
            slots = self._slots.get(job.kind)
            if slots is None:
                strangers.append(job)
                continue
            self._settler.hold(job)
            self._held += 1
            self._suspects += job.crashes > 0
            slots.waiting.append(job)
        for slots in self._slots.values():
            slots.wake(-(-len(slots.waiting) // slots.handler.batch_size))
        if strangers:
            # A newer build knows the kind. During an upgrade, and after it was rolled back, its
            # jobs wait for it and lose no attempt.
            _LOG.warning("jobs_of_unknown_kinds", kinds=sorted({job.kind for job in strangers}))
            self._settler.release(strangers, _STRANGERS_S)

    async def _work(self, slots: _Slots) -> None:
        handler = slots.handler
        waiting = slots.waiting
        yielded_at = perf_counter()
        while True:
            while not waiting:
                if self._stopping.is_set():
                    return
                future = asyncio.get_running_loop().create_future()
                slots.idle.append(future)
                await future
                yielded_at = perf_counter()
            if self._stopping.is_set():
                return
            await self._run_one(handler, slots.take())
            if perf_counter() - yielded_at > _YIELD_EVERY_S:
                await asyncio.sleep(0)
                yielded_at = perf_counter()

    async def _run_one(self, handler: Handler, jobs: Sequence[LeasedJob]) -> None:
        batch = Batch(jobs, self._settler, self._stopping)
        started = perf_counter()
        try:
            if trace.on():
                await _followed(handler, batch)
            else:
                await handler.handle(batch)
        except asyncio.CancelledError:
            self._settler.release(batch.doubtful)
            raise
        except Exception as error:
            self._failed(handler, batch, error)
        else:
            self._settler.complete(batch.unsettled)
            self._settler.let_go(batch.settled)
            for outcome, count in batch.outcomes.items():
                JOBS.labels(self.queue, outcome).inc(count)
        self._finished(jobs, perf_counter() - started)

    def _failed(self, handler: Handler, batch: Batch, error: Exception) -> None:
        reason = reason_of(error)
        if isinstance(error, OutOfReach):
            _LOG.warning("job waits", kind=handler.kind, error=reason)
            self._settler.release(batch.doubtful, error.retry_after_s)
            return
        if is_hopeless(error):
            _LOG.error("job buried", kind=handler.kind, error=reason)
            self._settler.bury(batch.doubtful, reason)
            return
        _LOG.warning("job failed", kind=handler.kind, error=reason, exc_info=error)
        for attempt, jobs in by_attempt(batch.doubtful).items():
            self._settler.retry(jobs, RETRY.delay_s(attempt, self._random), reason)

    def _finished(self, jobs: Sequence[LeasedJob], seconds: float) -> None:
        self._held -= len(jobs)
        for job in jobs:
            self._suspects -= job.crashes > 0
        self._pace.count(len(jobs))
        JOB_SECONDS.labels(self.queue).observe(seconds)
        self._room_made.set()

    async def _give_back(self) -> None:
        for slots in self._slots.values():
            unbegun = list(slots.waiting)
            slots.waiting.clear()
            self._settler.release(unbegun)


async def _followed(handler: Handler, batch: Batch) -> None:
    """As `handler.handle`, with a span for each job that is part of a trace."""
    marks = batch.begin_spans()
    error = ""
    try:
        with trace.within(marks):
            await handler.handle(batch)
    except BaseException as raised:
        error = type(raised).__name__
        raise
    finally:
        batch.end_spans(error)


class _Pace:
    """Jobs a second, over the last half second or so."""

    __slots__ = ("_counted", "_since", "per_s")

    def __init__(self) -> None:
        self.per_s = 0.0
        self._counted = 0
        self._since = perf_counter()

    def count(self, jobs: int) -> None:
        self._counted += jobs
        passed_s = perf_counter() - self._since
        if passed_s >= 0.1:
            self.per_s = 0.5 * self.per_s + 0.5 * self._counted / passed_s
            self._counted = 0
            self._since = perf_counter()
