"""Jobs in a handler's hands, and what a handler is.

What a batch does not settle by itself its worker does: complete when the handler returns, retry or
bury when it raises.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import Any

import structlog

from mailyard.core.backoff import Backoff
from mailyard.core.errors import MailyardError, OutOfReach
from mailyard.observe import trace
from mailyard.observe.reason import REASON_MAX, reason_of
from mailyard.queue.job import LeasedJob, NewJob
from mailyard.queue.settle import Settler

RETRY = Backoff(first_s=1.0, cap_s=3600.0)

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
        done = await self._settler.engine.retry(jobs, delay_s, error[:REASON_MAX], tx)
        self._settled(jobs, tx, "retried")
        return done

    async def bury(self, jobs: Sequence[LeasedJob], error: str, tx: Any = None) -> set[int]:
        """Dead-letter jobs that can never work."""
        self._settler.ending(jobs)
        done = await self._settler.engine.bury(jobs, error[:REASON_MAX], tx)
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
        reason = reason_of(error)
        if isinstance(error, OutOfReach):
            _LOG.warning("jobs wait", jobs=[job.id for job in jobs], error=reason)
            await self.release(jobs, error.retry_after_s)
            return
        if is_hopeless(error):
            _LOG.error("jobs buried", jobs=[job.id for job in jobs], error=reason)
            await self.bury(jobs, reason)
            return
        kinds = ",".join(sorted({job.kind for job in jobs}))
        ids = [job.id for job in jobs]
        _LOG.warning("jobs failed", kind=kinds, jobs=ids, error=reason, exc_info=error)
        for attempt, these in by_attempt(jobs).items():
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

    `rare`: few of the queue's jobs are of this kind, so nothing is leased for its slots before they
    are known to be needed. It would be jobs of other kinds, which wait here while another worker
    could begin them.
    """

    kind: str
    queue: str
    handle: Handle
    batch_size: int = 1
    concurrency: int = 1
    gather_s: float = 0.0
    gather_weight: int = 4
    weigh: Callable[[LeasedJob], int] = _one
    rare: bool = False


def is_hopeless(error: Exception) -> bool:
    """Whether another try can never help."""
    return isinstance(error, MailyardError) and not error.retryable


def by_attempt(jobs: Iterable[LeasedJob]) -> dict[int, list[LeasedJob]]:
    """Who is tried for the nth time waits as long as an nth time does."""
    found: dict[int, list[LeasedJob]] = {}
    for job in jobs:
        found.setdefault(job.attempt, []).append(job)
    return found
