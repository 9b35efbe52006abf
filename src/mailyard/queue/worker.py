"""The worker: takes jobs from several lanes, runs their handlers, settles the results.

Each lane (queue) has a loop of its own that leases, so a busy lane never starves another. Each
handler has `concurrency` slots; a slot takes up to `batch_size` jobs and runs the handler on them.
Jobs are leased a little ahead of the slots, in proportion to how fast they have lately been done.
Finished jobs gather while the last statement is under way and are settled together. One heartbeat
prolongs every lease that is held, so an event loop that stands still, or a dead process, gives its
jobs to others, and a slow handler does not.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from time import perf_counter
from typing import Any

import structlog

from mailyard.core.backoff import Backoff
from mailyard.core.errors import MailyardError, OutOfReach
from mailyard.core.limits import HEARTBEAT_S
from mailyard.observe import trace
from mailyard.observe.metrics import JOB_SECONDS, JOBS, WORKER_SLOTS
from mailyard.queue.engine import Engine
from mailyard.queue.job import LeasedJob, NewJob
from mailyard.queue.settle import Settler

RETRY = Backoff(first_s=1.0, cap_s=3600.0)
RECONNECT = Backoff(first_s=0.1, cap_s=2.0)

_LEASE_WAIT_S = 1.0  # one question to the bus or the database; also the longest that a drain waits
_SUSPECT_WAIT_S = 0.05  # while one suspect is held: the next of a hundred is not to wait for long
_AHEAD_S = 0.25  # so much work is leased ahead of the slots
_LEASE_JOBS = 1_000  # the most that one statement leases, and that a lane holds ahead
_YIELD_EVERY_S = 0.005  # a slot whose handler never waits lets others run this often
_STRANGERS_S = 30.0  # how long a job waits that this build has no handler for
_ERROR_CHARACTERS = 500
_RANDOM = Random()

_LOG = structlog.get_logger(__name__)


class Batch:
    """Jobs in a handler's hands. What it does not settle is completed when it returns."""

    __slots__ = (
        "_in_transaction",
        "_outcomes",
        "_settler",
        "_spans",
        "_unsettled",
        "jobs",
        "stopping",
    )

    def __init__(
        self, jobs: Sequence[LeasedJob], settler: Settler, stopping: asyncio.Event
    ) -> None:
        self.jobs = jobs
        self.stopping = stopping
        self._settler = settler
        self._spans: dict[int, list[trace.Span]] = {}
        self._unsettled: dict[int, LeasedJob] | None = None
        self._in_transaction: list[LeasedJob] = []
        self._outcomes: dict[int, str] = {}

    async def complete(self, jobs: Sequence[LeasedJob], tx: Any = None) -> set[int]:
        """Finish jobs now; the ids that were still ours.

        With `tx` the completion commits with the caller's results: when an id is missing in the
        answer, its results are another worker's to write, and the caller rolls back.
        """
        self._settler.ending(jobs)
        done = await self._settler.engine.complete(jobs, tx)
        self._settled(jobs, tx, "completed")
        return done

    async def retry(
        self, jobs: Sequence[LeasedJob], delay_s: float, error: str, tx: Any = None
    ) -> set[int]:
        """Give jobs back, due in `delay_s`; those with no attempt left are buried."""
        self._settler.ending(jobs)
        done = await self._settler.engine.retry(jobs, delay_s, error[:_ERROR_CHARACTERS], tx)
        self._settled(jobs, tx, "retried")
        return done

    async def bury(self, jobs: Sequence[LeasedJob], error: str, tx: Any = None) -> set[int]:
        """Dead-letter jobs that can never work."""
        self._settler.ending(jobs)
        done = await self._settler.engine.bury(jobs, error[:_ERROR_CHARACTERS], tx)
        self._settled(jobs, tx, "buried")
        return done

    async def release(
        self, jobs: Sequence[LeasedJob], delay_s: float = 0.0, tx: Any = None
    ) -> set[int]:
        """Give jobs back unworked, the attempt not counted: a handler stops, or it is not their
        time yet."""
        self._settler.ending(jobs)
        done = await self._settler.engine.release(jobs, delay_s, tx)
        self._settled(jobs, tx, "released")
        return done

    async def fail(self, jobs: Sequence[LeasedJob], error: Exception) -> None:
        """What an exception does to the whole batch, done to these jobs alone."""
        reason = _reason(error)
        if isinstance(error, OutOfReach):
            _LOG.warning("jobs wait", jobs=[job.id for job in jobs], error=reason)
            await self.release(jobs, error.retry_after_s)
            return
        if _is_hopeless(error):
            _LOG.error("jobs buried", jobs=[job.id for job in jobs], error=reason)
            await self.bury(jobs, reason)
            return
        kinds = ",".join(sorted({job.kind for job in jobs}))
        ids = [job.id for job in jobs]
        _LOG.warning("jobs failed", kind=kinds, jobs=ids, error=reason, exc_info=error)
        for attempt, these in _by_attempt(jobs).items():
            await self.retry(these, RETRY.delay_s(attempt, _RANDOM), reason)

    async def divide(self, job: LeasedJob, payloads: Sequence[bytes], tx: Any) -> None:
        """Put several jobs in the place of one, within `tx`; nothing when it is another's by now.

        They start as new, so that what fails among them fails alone.
        """
        if await self.complete([job], tx):
            await self._settler.engine.enqueue(
                [
                    NewJob(
                        job.queue,
                        job.kind,
                        payload,
                        job.workspace_id,
                        max_attempts=job.max_attempts,
                        trace=job.trace,
                    )
                    for payload in payloads
                ],
                tx,
            )

    def marks_of(self, job: LeasedJob) -> bytes:
        """For what follows from the work on `job` (observe/trace.py); empty: it is not followed."""
        return b"".join([span.mark for span in self._spans.get(job.id, ())])

    def begin_spans(self) -> bytes:
        """Follow the jobs that carry marks. The marks of the only job, where it is one."""
        for job in self.jobs:
            if job.trace:
                waited_s = (datetime.now(UTC) - job.enqueued_at).total_seconds()
                self._spans[job.id] = [
                    span
                    for mark in trace.each(job.trace)
                    if (
                        span := trace.begin(
                            f"job {job.kind}",
                            trace.CONSUMER,
                            mark,
                            messaging__destination__name=job.queue,
                            mailyard__job=job.id,
                            mailyard__attempt=job.attempt,
                            mailyard__waited_s=round(max(0.0, waited_s), 6),
                        )
                    )
                    is not None
                ]
        return self.marks_of(self.jobs[0]) if len(self.jobs) == 1 else b""

    def end_spans(self, error: str = "") -> None:
        """The work on all jobs is over."""
        for spans in self._spans.values():
            for span in spans:
                span.end(error)

    @property
    def unsettled(self) -> Sequence[LeasedJob]:
        """What the handler has not settled yet."""
        return self.jobs if self._unsettled is None else list(self._unsettled.values())

    @property
    def doubtful(self) -> Sequence[LeasedJob]:
        """After an exception: what is unsettled, or was in a transaction that may have rolled back.

        Settling once more what did commit changes nothing, for the lease is gone.
        """
        return [*self.unsettled, *self._in_transaction]

    @property
    def settled(self) -> Iterable[LeasedJob]:
        """What the handler has settled by itself."""
        if self._unsettled is None:
            return ()
        return [job for job in self.jobs if job.id not in self._unsettled]

    @property
    def outcomes(self) -> Counter[str]:
        """How many jobs the handler has settled by itself, by how; of one that it settled again,
        because a transaction was rolled back, the last."""
        return Counter(self._outcomes.values())

    def _settled(self, jobs: Iterable[LeasedJob], tx: Any, outcome: str) -> None:
        if self._unsettled is None:
            self._unsettled = {job.id: job for job in self.jobs}
        for job in jobs:
            self._unsettled.pop(job.id, None)
            self._outcomes[job.id] = outcome
            if tx is not None:
                self._in_transaction.append(job)


Handle = Callable[[Batch], Awaitable[None]]


def _one(_: LeasedJob) -> int:
    return 1


@dataclass(frozen=True, slots=True)
class Handler:
    """How jobs of `kind` in `queue` are done: `batch_size` a call, `concurrency` calls at once.

    `gather_s`: behind a lease that took all there was the lane waits for more, because a few jobs a
    call cost nearly as much as many: so long behind one that brought `gather_weight` or more, and
    less the less it brought. `weigh` says what a job weighs. The first job after a pause waits for
    nothing.
    """

    kind: str
    queue: str
    handle: Handle
    batch_size: int = 1
    concurrency: int = 1
    gather_s: float = 0.0
    gather_weight: int = 4
    weigh: Callable[[LeasedJob], int] = _one


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
            _Lane(queue, own, engine, self._settler, self.stopping, name)
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


class _Lane:
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
        self._in_slots = sum(handler.concurrency * handler.batch_size for handler in handlers)
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
        reason = _reason(error)
        if isinstance(error, OutOfReach):
            _LOG.warning("job waits", kind=handler.kind, error=reason)
            self._settler.release(batch.doubtful, error.retry_after_s)
            return
        if _is_hopeless(error):
            _LOG.error("job buried", kind=handler.kind, error=reason)
            self._settler.bury(batch.doubtful, reason)
            return
        _LOG.warning("job failed", kind=handler.kind, error=reason, exc_info=error)
        for attempt, jobs in _by_attempt(batch.doubtful).items():
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


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:_ERROR_CHARACTERS]


def _is_hopeless(error: Exception) -> bool:
    return isinstance(error, MailyardError) and not error.retryable


def _by_attempt(jobs: Iterable[LeasedJob]) -> dict[int, list[LeasedJob]]:
    """Who is tried for the nth time waits as long as an nth time does."""
    found: dict[int, list[LeasedJob]] = {}
    for job in jobs:
        found.setdefault(job.attempt, []).append(job)
    return found


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
