"""The queue on PostgreSQL: durable, transactional, built against bloat (migration 0002).

A job keeps its row from enqueue to completion and is not updated on the way. Its place in line is a
narrow row that the lease deletes; the lease itself is one row for the whole batch. What is not
plainly due (delayed, given back, limited by its key) waits in tables beside the lines and is staged
into them by whoever leases next.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from mailyard.core.clock import Clock
from mailyard.core.errors import Unavailable
from mailyard.core.limits import JOB_CRASHES_BEFORE_BURIED, JOB_SECOND_CHANCES_S, LEASE_S
from mailyard.observe.metrics import JOBS
from mailyard.observe.trace import unpacked
from mailyard.queue.engine import ALL_CAPABILITIES, WakeUps, topic_of
from mailyard.queue.engines.leasing import Leasing, OpenLeases
from mailyard.queue.engines.lines import Lines
from mailyard.queue.engines.stage import LINES_TOPIC, Stage
from mailyard.queue.job import CRASHED, DeadJob, Depth, KeyPolicy, LeasedJob, NewJob, check
from mailyard.storage.bind import bound
from mailyard.storage.database import AWAY, Connection, Database
from mailyard.storage.queries import Query, load

UPKEEP_S = 0.05  # how often one process stages what has become due
_COMMIT_CHECK_S = 0.002
_COMMIT_CHECKS = 5_000

_SQL = load("queue")


class PostgresEngine:
    """Use one a process. `clock` None: the database's time. `upkeep_s` 0: stage at every lease."""

    capabilities = ALL_CAPABILITIES

    def __init__(
        self,
        *,
        database: Database,
        bus: WakeUps,
        clock: Clock | None = None,
        upkeep_s: float = UPKEEP_S,
    ) -> None:
        self._database = database
        self._bus = bus
        self._clock = clock
        self._lines = Lines() if upkeep_s else Lines(straggle_every_s=0.0)
        self._stage = Stage(
            database, self._lines, bus.subscribe(LINES_TOPIC), self.announce, self._now, upkeep_s
        )
        self._open = OpenLeases()
        self._leasing = Leasing(database, bus, self._lines, self._stage, self._open, self._now)
        self._announcing: set[asyncio.Task[None]] = set()
        self._making_lines = asyncio.Lock()

    def _now(self) -> datetime | None:
        return None if self._clock is None else self._clock.now()

    # Adding -----------------------------------------------------------------------------------

    async def enqueue(
        self, jobs: Sequence[NewJob], tx: Connection | None = None
    ) -> list[int | None]:
        if not jobs:
            return []
        *plain, queues, counts = await self._plain(jobs)
        ids: list[int | None]
        if any(_waits_or_has_a_key(job) for job in jobs):
            ids = await self._database.fetchval(
                _SQL.enqueue_special,
                *plain,
                [job.run_at for job in jobs],
                [stored_key(job) for job in jobs],
                [job.limit_key for job in jobs],
                tx=tx,
            )
            self._stage.hasten()
        else:
            ids = await self._database.fetchval(_SQL.enqueue, *plain, queues, counts, tx=tx)
        self._announce_after(tx, queues)
        return ids

    async def statement(self, jobs: Sequence[NewJob]) -> str:
        """The enqueue of `jobs` (at least one, none with a time or a key) as text.

        It is for who sends it in one message with another statement, so as one transaction in one
        round trip; the queues are his to announce after the commit.
        """
        assert not any(_waits_or_has_a_key(job) for job in jobs), "only what is plainly due"
        return bound(_SQL.enqueue, *await self._plain(jobs))

    async def _plain(self, jobs: Sequence[NewJob]) -> tuple[Any, ...]:
        """What every enqueue gives PostgreSQL, with the queues and how many jobs each gets."""
        counts = Counter([job.queue for job in jobs])
        return (
            await self.lines_of(jobs),
            [job.kind for job in jobs],
            [job.stored for job in jobs],
            [job.max_attempts for job in jobs],
            self._now(),
            list(counts),
            list(counts.values()),
        )

    def announce(self, queues: Sequence[str]) -> None:
        for queue in queues:
            self._bus.announce(topic_of(queue))

    def announce_after(self, tx: Connection | None, topics: Sequence[str]) -> None:
        """Announce topics of the bus now, or when the caller's transaction has ended."""
        if tx is None:
            for topic in topics:
                self._bus.announce(topic)
            return
        task = asyncio.create_task(self._announce_at_commit(tx, topics))
        self._announcing.add(task)
        task.add_done_callback(self._announcing.discard)

    def _announce_after(self, tx: Connection | None, queues: Sequence[str]) -> None:
        self.announce_after(tx, [topic_of(queue) for queue in queues])

    async def _announce_at_commit(self, tx: Connection, topics: Sequence[str]) -> None:
        """asyncpg has no hook for a commit, so look until the connection is out of it."""
        for _ in range(_COMMIT_CHECKS):
            try:
                if not tx.is_in_transaction():
                    break
            except asyncpg.InterfaceError:  # given back to its pool: it has ended
                break
            await asyncio.sleep(_COMMIT_CHECK_S)
        for topic in topics:
            self._bus.announce(topic)

    def came_back(self, tx: Connection | None, queues: Sequence[str]) -> None:
        """Another engine has put jobs of `queues` beside the lines, with `tx` when given."""
        self._stage.hasten()
        self._announce_after(tx, list(set(queues)))

    def due_in_s(self) -> float:
        """Seconds until a lease may find something that nobody announces."""
        return self._stage.due_in_s()

    async def lines_of(self, jobs: Sequence[NewJob]) -> list[int]:
        """The line of each job."""
        for job in jobs:
            check(job)
        if self._unknown_lines(jobs):
            async with self._making_lines:
                await self._make_lines(self._unknown_lines(jobs))
        ids = []
        for job in jobs:
            line = self._lines.find(job.queue, job.priority, job.workspace_id)
            assert line is not None
            ids.append(line.id)
        return ids

    def _unknown_lines(self, jobs: Sequence[NewJob]) -> list[tuple[str, int, UUID | None]]:
        keys = {(job.queue, job.priority, job.workspace_id): None for job in jobs}
        return [key for key in keys if self._lines.find(*key) is None]

    async def _make_lines(self, missing: list[tuple[str, int, UUID | None]]) -> None:
        """Committed at once, apart from the caller's transaction, which may roll back.

        The others are told before the caller can commit, so the line's first job is found at once.

        On a connection past the pool: callers that hold all of the pool's connections in their
        transactions would wait here for one of them for ever.
        """
        if not missing:
            return  # learned by another call meanwhile
        queues, priorities, workspaces = zip(*missing, strict=True)
        connection = await self._database.direct()
        try:
            await connection.execute(
                _SQL.add_lines, list(queues), list(priorities), list(workspaces)
            )
            self._stage.learn(await connection.fetch(_SQL.lines, 0))
        except AWAY as error:
            raise Unavailable(f"PostgreSQL is away: {error}") from error
        finally:
            connection.terminate()
        self._bus.announce(LINES_TOPIC)

    # Taking -----------------------------------------------------------------------------------

    async def lease(
        self,
        queues: Sequence[str],
        limit: int,
        wait_s: float,
        worker: str,
        suspects: bool = True,
    ) -> list[LeasedJob]:
        return await self._leasing.lease(queues, limit, wait_s, worker, suspects)

    # Settling ---------------------------------------------------------------------------------

    async def extend(self, jobs: Sequence[LeasedJob]) -> set[int]:
        if not jobs:
            return set()
        rows = await self._database.fetch(
            _SQL.extend,
            [job.id for job in jobs],
            [job.turn for job in jobs],
            [job.token for job in jobs],
            list({job.token for job in jobs}),
            LEASE_S,
            self._now(),
        )
        return {row["id"] for row in rows}

    async def complete(self, jobs: Sequence[LeasedJob], tx: Connection | None = None) -> set[int]:
        return await self._settle(_SQL.complete, jobs, (), tx)

    async def retry(
        self,
        jobs: Sequence[LeasedJob],
        delay_s: float,
        error: str,
        tx: Connection | None = None,
    ) -> set[int]:
        again = [job for job in jobs if job.attempt < job.max_attempts]
        used_up = [job for job in jobs if job.attempt >= job.max_attempts]
        done = await self._give_back(again, delay_s, 1, error, tx)
        return done | await self.bury(used_up, error, tx)

    async def release(
        self, jobs: Sequence[LeasedJob], delay_s: float = 0.0, tx: Connection | None = None
    ) -> set[int]:
        return await self._give_back(jobs, delay_s, 0, None, tx)

    async def bury(
        self, jobs: Sequence[LeasedJob], error: str, tx: Connection | None = None
    ) -> set[int]:
        return await self._settle(_SQL.bury, jobs, (self._now(), error), tx)

    async def rescue(self) -> int:
        row = await self._database.fetchrow(
            _SQL.rescue,
            self._now(),
            JOB_CRASHES_BEFORE_BURIED,
            CRASHED,
            list(JOB_SECOND_CHANCES_S),
        )
        assert row is not None
        chances = await self._database.fetch(_SQL.give_chances, self._now())
        for chance in chances:
            JOBS.labels(chance["queue"], "second chance").inc(chance["jobs"])
        queues = {*row["queues"], *(chance["queue"] for chance in chances)}
        if queues:
            self._stage.hasten()
            self.announce(list(queues))
        return int(row["jobs"] + sum(chance["jobs"] for chance in chances))

    async def _give_back(
        self,
        jobs: Sequence[LeasedJob],
        delay_s: float,
        attempts: int,
        error: str | None,
        tx: Connection | None,
    ) -> set[int]:
        done = await self._settle(_SQL.give_back, jobs, (delay_s, self._now(), attempts, error), tx)
        if done:
            self.came_back(tx, [job.queue for job in jobs])
        return done

    async def _settle(
        self, query: Query, jobs: Sequence[LeasedJob], rest: tuple[Any, ...], tx: Connection | None
    ) -> set[int]:
        if not jobs:
            return set()
        tokens = {job.token for job in jobs}
        row = await self._database.fetchval(
            query,
            [job.id for job in jobs],
            [job.turn for job in jobs],
            [job.token for job in jobs],
            list(tokens),
            self._open.ended_by(jobs, tokens),
            *rest,
            tx=tx,
        )
        if tx is None:
            self._open.settle(jobs)
        return set(row or ())

    # Looking and steering ---------------------------------------------------------------------

    async def is_leased(self, workspace_id: UUID | None, queue: str, payload: bytes) -> bool:
        held: bool = await self._database.fetchval(
            _SQL.is_leased, workspace_id, queue, payload, self._now()
        )
        return held

    async def depth(self, queues: Sequence[str]) -> list[Depth]:
        await self._stage.run()
        rows = await self._database.fetch(_SQL.depth, list(queues))
        counts = {row["queue"]: row for row in rows}
        ages = await self._stage.ages(queues)
        return [
            Depth(queue, 0, 0, 0, 0, 0.0)
            if queue not in counts
            else Depth(
                queue,
                counts[queue]["ready"],
                counts[queue]["scheduled"],
                counts[queue]["leased"],
                counts[queue]["dead"],
                ages.get(queue, 0.0),
            )
            for queue in queues
        ]

    async def fold(self) -> None:
        """Add the settled changes to the counts now. Staging does so every few seconds."""
        await self._database.execute(_SQL.fold)

    async def pause(self, queue: str, tx: Connection | None = None) -> None:
        await self._database.execute(_SQL.pause, queue, True, tx=tx)

    async def resume(self, queue: str, tx: Connection | None = None) -> None:
        await self._database.execute(_SQL.pause, queue, False, tx=tx)
        self._announce_after(tx, [queue])

    async def paused(self) -> set[str]:
        return {row["queue"] for row in await self._database.fetch(_SQL.paused)}

    async def limit_keys(self, queue: str, policy: KeyPolicy) -> None:
        await self._database.execute(
            _SQL.limit_keys, queue, policy.rate_per_s, policy.burst, policy.concurrency
        )
        self._stage.hasten()
        self.announce([queue])

    async def list_dead(
        self, workspace_id: UUID | None, queue: str | None, before: int | None, limit: int
    ) -> list[DeadJob]:
        rows = await self._database.fetch(_SQL.list_dead, workspace_id, queue, before, limit)
        return [
            DeadJob(
                id=row["id"],
                queue=row["queue"],
                kind=row["kind"],
                payload=unpacked(row["payload"])[0],
                workspace_id=row["workspace_id"],
                attempts=row["attempts"],
                crashes=row["crashes"],
                error=row["error"],
                enqueued_at=row["enqueued_at"],
                buried_at=row["buried_at"],
                chances=row["chances"],
                again_at=row["again_at"],
            )
            for row in rows
        ]

    async def redrive(
        self, workspace_id: UUID | None, ids: Sequence[int], tx: Connection | None = None
    ) -> set[int]:
        rows = await self._database.fetch(_SQL.redrive, workspace_id, list(ids), self._now(), tx=tx)
        self._stage.hasten()
        self._announce_after(tx, list({row["queue"] for row in rows}))
        return {row["id"] for row in rows}

    async def discard(
        self, workspace_id: UUID | None, ids: Sequence[int], tx: Connection | None = None
    ) -> set[int]:
        rows = await self._database.fetch(_SQL.discard, workspace_id, list(ids), tx=tx)
        return {row["id"] for row in rows}


def stored_key(job: NewJob) -> str | None:
    """The unique key as it stands in the table of jobs: each queue has its own."""
    return None if job.unique_key is None else f"{job.queue}\n{job.unique_key}"


def _waits_or_has_a_key(job: NewJob) -> bool:
    return bool(job.run_at or job.unique_key or job.limit_key)
