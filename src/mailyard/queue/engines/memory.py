"""The queue in memory: the contract without a server, for unit tests and simulations.

Nothing outlives the process. A `tx` is a `MemoryTransaction`: what was asked is done at its commit,
and answers are given as of now.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

from mailyard.core.clock import Clock
from mailyard.core.limits import JOB_CRASHES_BEFORE_BURIED, JOB_SECOND_CHANCES_S, LEASE_S
from mailyard.queue.engine import ALL_CAPABILITIES, WakeUps, topic_of
from mailyard.queue.engines.memory_job import MemoryJob, MemoryKey
from mailyard.queue.engines.memory_lines import MemoryLines
from mailyard.queue.engines.memory_transaction import MemoryTransaction, do
from mailyard.queue.job import CRASHED, DeadJob, Depth, KeyPolicy, LeasedJob, NewJob, check


class MemoryEngine:
    """Passes the same contract suite as the PostgreSQL engine."""

    capabilities = ALL_CAPABILITIES

    def __init__(self, *, clock: Clock, bus: WakeUps) -> None:
        self._clock = clock
        self._bus = bus
        self._jobs: dict[int, MemoryJob] = {}
        self._lines = MemoryLines()
        self._unique: dict[tuple[str, str], int] = {}
        self._keys: dict[tuple[str, str], MemoryKey] = {}
        self._policies: dict[str, KeyPolicy] = {}
        self._paused: set[str] = set()
        self._last_id = 0
        self._last_token = 0
        self._random = Random()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[MemoryTransaction]:
        """Commits at the end of the block; an exception rolls back."""
        tx = MemoryTransaction()
        yield tx
        tx.commit()

    # Adding and taking ------------------------------------------------------------------------

    async def enqueue(self, jobs: Sequence[NewJob], tx: Any = None) -> list[int | None]:
        ids: list[int | None] = []
        added: list[MemoryJob] = []
        for new in jobs:
            check(new)
            key = (new.queue, new.unique_key or "")
            if new.unique_key is not None and key in self._unique:
                ids.append(None)
                continue
            self._last_id += 1
            now = self._clock.now()
            job = MemoryJob(self._last_id, new, now, max(new.run_at or now, now))
            if new.unique_key is not None:
                self._unique[key] = job.id
            ids.append(job.id)
            added.append(job)
        do(tx, lambda: self._add(added))
        return ids

    def announce(self, queues: Sequence[str]) -> None:
        for queue in queues:
            self._bus.announce(topic_of(queue))

    async def lease(
        self,
        queues: Sequence[str],
        limit: int,
        wait_s: float,
        worker: str,  # noqa: ARG002 (nobody asks here who has a job)
        suspects: bool = True,
    ) -> list[LeasedJob]:
        subscriptions = [self._bus.subscribe(topic_of(queue)) for queue in queues]
        try:
            leased = self._lease_now(queues, limit, suspects)
            if leased or wait_s <= 0:
                return leased
            waits = [asyncio.ensure_future(s.wait(wait_s)) for s in subscriptions]
            _, unfinished = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in unfinished:
                wait.cancel()
            return self._lease_now(queues, limit, suspects)
        finally:
            for subscription in subscriptions:
                subscription.close()

    # Settling ---------------------------------------------------------------------------------

    async def extend(self, jobs: Sequence[LeasedJob]) -> set[int]:
        mine = self._mine(jobs)
        for job in mine:
            job.expires_at = self._clock.now() + timedelta(seconds=LEASE_S)
        return {job.id for job in mine}

    async def complete(self, jobs: Sequence[LeasedJob], tx: Any = None) -> set[int]:
        return self._settle(jobs, tx, self._finish)

    async def retry(
        self, jobs: Sequence[LeasedJob], delay_s: float, error: str, tx: Any = None
    ) -> set[int]:
        def give_back(job: MemoryJob) -> None:
            job.attempts += 1
            if job.attempts >= job.new.max_attempts:
                self._bury(job, error)
                return
            job.error = error
            job.crashes = 0
            self._leave(job)
            job.due_at = self._clock.now() + timedelta(seconds=delay_s)
            self._enter(job)

        return self._settle(jobs, tx, give_back)

    async def release(
        self, jobs: Sequence[LeasedJob], delay_s: float = 0.0, tx: Any = None
    ) -> set[int]:
        def give_back(job: MemoryJob) -> None:
            self._leave(job)
            if delay_s > 0:
                job.due_at = self._clock.now() + timedelta(seconds=delay_s)
            self._enter(job)

        return self._settle(jobs, tx, give_back)

    async def bury(self, jobs: Sequence[LeasedJob], error: str, tx: Any = None) -> set[int]:
        def bury(job: MemoryJob) -> None:
            job.attempts += 1
            self._bury(job, error)

        return self._settle(jobs, tx, bury)

    async def rescue(self) -> int:
        now = self._clock.now()
        dead = [
            job
            for job in self._jobs.values()
            if job.state == "leased" and job.expires_at is not None and job.expires_at < now
        ]
        for job in dead:
            job.attempts += 1
            job.crashes += 1
            if job.crashes >= JOB_CRASHES_BEFORE_BURIED or job.attempts >= job.new.max_attempts:
                self._bury(job, CRASHED)
                self._promise_chance(job)
            else:
                job.error = CRASHED
                self._leave(job)
                self._enter(job)
        return len(dead) + self._give_chances(now)

    # Looking and steering ---------------------------------------------------------------------

    async def is_leased(self, workspace_id: UUID | None, queue: str, payload: bytes) -> bool:
        return any(
            job.state == "leased"
            and job.expires_at is not None
            and job.expires_at > self._clock.now()
            for job in self._jobs.values()
            if (job.new.workspace_id, job.new.queue, job.new.payload)
            == (workspace_id, queue, payload)
        )

    async def depth(self, queues: Sequence[str]) -> list[Depth]:
        self._move_what_is_due()
        now = self._clock.now()
        depths = []
        for queue in queues:
            own = [job for job in self._jobs.values() if job.new.queue == queue]
            count = dict.fromkeys(("ready", "scheduled", "parked", "leased", "dead"), 0)
            for job in own:
                count[job.state] += 1
            ages = [(now - job.due_at).total_seconds() for job in own if job.state == "ready"]
            depths.append(
                Depth(
                    queue,
                    count["ready"] + count["parked"],
                    count["scheduled"],
                    count["leased"],
                    count["dead"],
                    max(ages, default=0.0),
                )
            )
        return depths

    async def pause(self, queue: str, tx: MemoryTransaction | None = None) -> None:
        do(tx, lambda: self._paused.add(queue))

    async def resume(self, queue: str, tx: MemoryTransaction | None = None) -> None:
        def resume() -> None:
            self._paused.discard(queue)
            self.announce([queue])

        do(tx, resume)

    async def paused(self) -> set[str]:
        return set(self._paused)

    async def limit_keys(self, queue: str, policy: KeyPolicy) -> None:
        self._policies[queue] = policy
        self.announce([queue])

    async def list_dead(
        self, workspace_id: UUID | None, queue: str | None, before: int | None, limit: int
    ) -> list[DeadJob]:
        found = [
            job
            for job in self._jobs.values()
            if job.state == "dead"
            and job.new.workspace_id == workspace_id
            and (queue is None or job.new.queue == queue)
            and (before is None or job.id < before)
        ]
        found.sort(key=lambda job: -job.id)
        return [job.as_dead() for job in found[:limit]]

    async def redrive(
        self, workspace_id: UUID | None, ids: Sequence[int], tx: MemoryTransaction | None = None
    ) -> set[int]:
        def redrive() -> None:
            for job in risen:
                if self._rise(job, crashes=0):
                    job.chances = 0
                    job.error = ""

        risen = [job for job in self._dead(workspace_id, ids) if self._may_rise(job)]
        do(tx, redrive)
        return {job.id for job in risen}

    async def discard(
        self, workspace_id: UUID | None, ids: Sequence[int], tx: MemoryTransaction | None = None
    ) -> set[int]:
        def discard() -> None:
            for job_id in gone:
                self._jobs.pop(job_id, None)

        gone = {job.id for job in self._dead(workspace_id, ids)}
        do(tx, discard)
        return gone

    # Inside -----------------------------------------------------------------------------------

    def _add(self, jobs: Iterable[MemoryJob]) -> None:
        for job in jobs:
            self._jobs[job.id] = job
            self._enter(job)

    def _enter(self, job: MemoryJob) -> None:
        """Into its line, or beside it until it may."""
        now = self._clock.now()
        policy = self._policies.get(job.new.queue)
        if job.due_at > now:
            job.state = "scheduled"
        elif job.new.limit_key is not None and policy and policy.limits and not job.admitted:
            job.state = "parked"
            self._key(job).waiting.append(job.id)
        else:
            self._lines.add(job)
        self.announce([job.new.queue])

    def _leave(self, job: MemoryJob) -> None:
        """Out of its lease: the old token no longer fits."""
        job.turn += 1
        job.token = 0
        job.expires_at = None
        self._free(job)

    def _free(self, job: MemoryJob) -> None:
        job.admitted = False
        if job.new.limit_key is not None:
            self._key(job).running.discard(job.id)

    def _finish(self, job: MemoryJob) -> None:
        self._free(job)
        self._forget_unique(job)
        del self._jobs[job.id]

    def _bury(self, job: MemoryJob, error: str) -> None:
        self._leave(job)
        self._forget_unique(job)
        job.state = "dead"
        job.error = error
        job.buried_at = self._clock.now()

    def _promise_chance(self, job: MemoryJob) -> None:
        """A job buried for crashes may be innocent: when it comes back, away from its fellows."""
        if job.crashes >= JOB_CRASHES_BEFORE_BURIED and job.chances < len(JOB_SECOND_CHANCES_S):
            delay_s = JOB_SECOND_CHANCES_S[job.chances] * (1 + self._random.random())
            job.again_at = self._clock.now() + timedelta(seconds=delay_s)

    def _give_chances(self, now: datetime) -> int:
        due = [job for job in self._jobs.values() if job.again_at and job.again_at <= now]
        given = 0
        for job in due:
            job.again_at = None
            if self._rise(job, crashes=1):
                job.chances += 1
                given += 1
        return given

    def _rise(self, job: MemoryJob, crashes: int) -> bool:
        """From the dead into its line, unless its unique key stands again."""
        if not self._may_rise(job):
            return False
        if job.new.unique_key is not None:
            self._unique[job.new.queue, job.new.unique_key] = job.id
        job.attempts = 0
        job.crashes = crashes
        job.again_at = None
        job.turn += 1
        job.due_at = self._clock.now()
        self._enter(job)
        return True

    def _may_rise(self, job: MemoryJob) -> bool:
        return job.new.unique_key is None or (job.new.queue, job.new.unique_key) not in self._unique

    def _forget_unique(self, job: MemoryJob) -> None:
        if job.new.unique_key is not None:
            self._unique.pop((job.new.queue, job.new.unique_key), None)

    def _lease_now(self, queues: Sequence[str], limit: int, suspects: bool) -> list[LeasedJob]:
        self._move_what_is_due()
        open_queues = [queue for queue in queues if queue not in self._paused]
        if suspects:
            suspect = self._take(open_queues, 1, True)
            if suspect:
                return suspect
        return self._take(open_queues, limit, False)

    def _take(self, queues: Sequence[str], limit: int, suspects: bool) -> list[LeasedJob]:
        taken = self._lines.take(queues, limit, suspects)
        if not taken:
            return []
        self._last_token += 1
        expires_at = self._clock.now() + timedelta(seconds=LEASE_S)
        return [self._jobs[job_id].lent_to(self._last_token, expires_at) for job_id in taken]

    def _move_what_is_due(self) -> None:
        now = self._clock.now()
        due = [j for j in self._jobs.values() if j.state == "scheduled" and j.due_at <= now]
        for job in sorted(due, key=lambda job: (job.due_at, job.id)):
            self._enter(job)
        for (queue, _), key in self._keys.items():
            self._admit(self._policies.get(queue, KeyPolicy()), key, now)

    def _admit(self, policy: KeyPolicy, key: MemoryKey, now: datetime) -> None:
        while key.waiting and key.may_run(policy, now):
            job = self._jobs[key.waiting.popleft()]
            job.admitted = True
            key.running.add(job.id)
            self._lines.add(job)

    def _key(self, job: MemoryJob) -> MemoryKey:
        return self._keys.setdefault((job.new.queue, job.new.limit_key or ""), MemoryKey())

    def _mine(self, jobs: Sequence[LeasedJob]) -> list[MemoryJob]:
        mine: dict[int, MemoryJob] = {}
        for leased in jobs:
            job = self._jobs.get(leased.id)
            if (
                job is not None
                and job.state == "leased"
                and job.token == leased.token
                and job.turn == leased.turn
            ):
                mine[job.id] = job
        return list(mine.values())

    def _settle(
        self, jobs: Sequence[LeasedJob], tx: Any, act: Callable[[MemoryJob], None]
    ) -> set[int]:
        mine = self._mine(jobs)

        def settle() -> None:
            for job in self._mine(jobs):
                act(job)

        do(tx, settle)
        return {job.id for job in mine}

    def _dead(self, workspace_id: UUID | None, ids: Sequence[int]) -> list[MemoryJob]:
        found = [self._jobs[job_id] for job_id in dict.fromkeys(ids) if job_id in self._jobs]
        return [j for j in found if j.state == "dead" and j.new.workspace_id == workspace_id]
