"""The engine on Kafka, put together.

The lanes that it is told have their jobs in the log; all other lanes are the engine's on
PostgreSQL, and so is every job of its own lanes that is not due now: one with a time or a key with
limits, an urgent one, and whatever comes back (a retry, a suspect, a redriven dead letter). A lease
brings both.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from time import monotonic
from typing import Any
from uuid import UUID

import structlog

from mailyard.core.clock import Clock
from mailyard.core.errors import MailyardError
from mailyard.queue.engine import KAFKA_CAPABILITIES, WakeUps, topic_of
from mailyard.queue.engines.kafka.adding import Adding
from mailyard.queue.engines.kafka.claiming import HELP_EVERY_S, Claiming, LoggedJob
from mailyard.queue.engines.kafka.held import Held
from mailyard.queue.engines.kafka.intake import Intake, Reader
from mailyard.queue.engines.kafka.lag import Lag
from mailyard.queue.engines.kafka.marking import Marks
from mailyard.queue.engines.kafka.options import KafkaOptions
from mailyard.queue.engines.kafka.outbox import HOLD_S, Drain
from mailyard.queue.engines.kafka.topics import Topics
from mailyard.queue.engines.postgres import PostgresEngine
from mailyard.queue.job import DeadJob, Depth, KeyPolicy, LeasedJob, NewJob
from mailyard.storage.database import Connection, Database

_LOOK_S = 1.0
_POSTGRES_SHARE = 4  # of a lease, while the log has enough

_LOG = structlog.get_logger(__name__)


class KafkaEngine:
    """Use one a process, and `close` it. `lanes` have their jobs in the log.

    `clock` None: the database's time. `every_s` 0: drains, helps and looks at every call (tests).
    `joins` False: leaves the consumer group alone, and only helps.
    """

    capabilities = KAFKA_CAPABILITIES

    def __init__(
        self,
        *,
        postgres: PostgresEngine,
        database: Database,
        bus: WakeUps,
        options: KafkaOptions,
        lanes: Sequence[str],
        clock: Clock | None = None,
        every_s: float = HELP_EVERY_S,
        joins: bool = True,
    ) -> None:
        self._postgres = postgres
        self._database = database
        self._bus = bus
        self._options = options
        self._lanes = frozenset(lanes)
        self._clock = clock
        self._every_s = every_s
        self._joins = joins
        self._topics = Topics(options)
        self._reader = Reader(options)
        self._intake = Intake(options)
        self._lag = Lag(database, options, self._topics, self._reader)
        self._adding = Adding(
            postgres=postgres,
            database=database,
            bus=bus,
            options=options,
            topics=self._topics,
            lanes=self._lanes,
            now=self._now,
        )
        self._drain = Drain(
            database=database,
            bus=bus,
            options=options,
            topics=self._topics,
            queues=sorted(self._lanes),
            hold_s=HOLD_S if every_s else 0.0,
        )
        self._claiming = Claiming(
            database=database,
            options=options,
            intake=self._intake,
            reader=self._reader,
            lag=self._lag,
            now=self._now,
            help_every_s=every_s,
        )
        self._held = Held(
            database=database,
            reader=self._reader,
            lag=self._lag,
            lines_of=postgres.lines_of,
            now=self._now,
        )
        self._marks = Marks(self._intake, self._lag)
        self._postgres_first = True
        self._worked: set[str] = set()

    def _now(self) -> datetime | None:
        return None if self._clock is None else self._clock.now()

    async def close(self) -> None:
        """Leave the group, end the clients. What is held is given back by its worker before."""
        await self._marks.close()
        await self._drain.close()
        await self._adding.close()
        await self._intake.close()
        await self._reader.close()

    async def check_log(self) -> None:
        """Raises ConfigurationError when the log is not the one that jobs were given out of."""
        await self._lag.check(sorted(map(self._options.topic, self._lanes)))

    # Adding -----------------------------------------------------------------------------------

    async def enqueue(
        self, jobs: Sequence[NewJob], tx: Connection | None = None
    ) -> list[int | None]:
        return await self._adding.enqueue(jobs, tx)

    async def statement(self, jobs: Sequence[NewJob]) -> str:
        """As of the engine on PostgreSQL: the enqueue of `jobs`, of one kind of lane, as text."""
        return await self._adding.statement(jobs)

    def announce(self, queues: Sequence[str]) -> None:
        self._adding.announce(queues)

    # Taking -----------------------------------------------------------------------------------

    async def lease(
        self,
        queues: Sequence[str],
        limit: int,
        wait_s: float,
        worker: str,
        suspects: bool = True,
    ) -> list[LeasedJob]:
        logged = [queue for queue in queues if queue in self._lanes]
        if not logged:
            return await self._postgres.lease(queues, limit, wait_s, worker, suspects)
        self._begin(logged)
        leased = await self._lease_now(queues, logged, limit, worker, suspects)
        if leased or wait_s <= 0:
            return leased
        arrived = asyncio.Event()
        deaf = self._intake.listen(arrived)
        topics = [self._bus.subscribe(topic_of(queue)) for queue in queues]
        waits = [asyncio.create_task(_wake_by(topic, arrived)) for topic in topics]
        until_s = monotonic() + wait_s
        try:
            while not leased and (left_s := until_s - monotonic()) > 0:
                look_s = min(left_s, self._postgres.due_in_s(), self._every_s or _LOOK_S / 20)
                with suppress(TimeoutError):
                    async with asyncio.timeout(look_s):
                        await arrived.wait()
                arrived.clear()
                leased = await self._lease_now(queues, logged, limit, worker, suspects)
            return leased
        finally:
            deaf()
            for wait in waits:
                wait.cancel()
            for topic in topics:
                topic.close()

    def _begin(self, logged: Sequence[str]) -> None:
        """This process works: it fetches, drains, and says how far things are done."""
        if self._worked.issuperset(logged):
            return
        self._worked.update(logged)
        topics = [self._options.topic(queue) for queue in logged]
        if self._joins:
            for topic in topics:
                self._intake.want(topic)
        if self._every_s:
            self._drain.start()
            for topic in topics:
                self._marks.keep(topic)

    async def _lease_now(
        self,
        queues: Sequence[str],
        logged: Sequence[str],
        limit: int,
        worker: str,
        suspects: bool,
    ) -> list[LeasedJob]:
        if not self._every_s:
            await self._drain.drain()
        waiting = any(self._intake.waiting(self._options.topic(queue)) for queue in logged)
        share = max(1, limit // _POSTGRES_SHARE) if waiting else limit
        if limit == 1 and waiting:  # by turns
            self._postgres_first = not self._postgres_first
            share = 1 if self._postgres_first else 0
        own: list[LeasedJob] = []
        if share:
            own = await self._postgres.lease(queues, share, 0.0, worker, suspects)
            if own and own[0].crashes:
                return own  # a suspect comes alone
        leased: list[LeasedJob] = []
        for queue in logged:
            room = limit - len(own) - len(leased)
            if room > 0:
                leased += await self._take(queue, room, worker)
        return leased + own

    async def _take(self, queue: str, limit: int, worker: str) -> list[LeasedJob]:
        """Out of the log. While Kafka is away there is what PostgreSQL has."""
        try:
            return await self._claiming.take(queue, limit, worker)
        except MailyardError as error:
            _LOG.warning("nothing from the log", queue=queue, error=error.message)
            return []

    # Settling ---------------------------------------------------------------------------------

    async def extend(self, jobs: Sequence[LeasedJob]) -> set[int]:
        logged, own = _apart(jobs)
        return await self._held.extend(logged) | await self._postgres.extend(own)

    async def complete(self, jobs: Sequence[LeasedJob], tx: Connection | None = None) -> set[int]:
        logged, own = _apart(jobs)
        return await self._held.complete(logged, tx) | await self._postgres.complete(own, tx)

    async def retry(
        self,
        jobs: Sequence[LeasedJob],
        delay_s: float,
        error: str,
        tx: Connection | None = None,
    ) -> set[int]:
        logged, own = _apart(jobs)
        again = [job for job in logged if job.attempt < job.max_attempts]
        used_up = [job for job in logged if job.attempt >= job.max_attempts]
        done = await self._give_back(again, delay_s, 1, error, tx)
        done |= await self._held.bury(used_up, error, tx)
        return done | await self._postgres.retry(own, delay_s, error, tx)

    async def release(
        self, jobs: Sequence[LeasedJob], delay_s: float = 0.0, tx: Connection | None = None
    ) -> set[int]:
        logged, own = _apart(jobs)
        done = await self._give_back(logged, delay_s, 0, None, tx)
        return done | await self._postgres.release(own, delay_s, tx)

    async def bury(
        self, jobs: Sequence[LeasedJob], error: str, tx: Connection | None = None
    ) -> set[int]:
        logged, own = _apart(jobs)
        done = await self._held.bury(logged, error, tx)
        return done | await self._postgres.bury(own, error, tx)

    async def _give_back(
        self,
        jobs: Sequence[LoggedJob],
        delay_s: float,
        attempts: int,
        error: str | None,
        tx: Connection | None,
    ) -> set[int]:
        done = await self._held.give_back(jobs, delay_s, attempts, error, tx)
        if done:
            self._postgres.came_back(tx, [job.queue for job in jobs])
        return done

    async def rescue(self) -> int:
        rescued, queues = await self._held.rescue()
        if queues:
            self._postgres.came_back(None, list(queues))
        return rescued + await self._postgres.rescue()

    # Looking and steering ---------------------------------------------------------------------

    async def is_leased(self, workspace_id: UUID | None, queue: str, payload: bytes) -> bool:
        if queue in self._lanes and await self._held.is_leased(workspace_id, queue, payload):
            return True
        return await self._postgres.is_leased(workspace_id, queue, payload)

    async def depth(self, queues: Sequence[str]) -> list[Depth]:
        if not self._every_s:
            await self._drain.drain()
        depths = await self._postgres.depth(queues)
        logged = {self._options.topic(queue): queue for queue in queues if queue in self._lanes}
        if not logged:
            return depths
        try:
            lags, firsts = await self._lag.waiting(list(logged))
        except MailyardError as error:
            _LOG.warning("lag not known", error=error.message)
            return depths
        now = self._now() or datetime.now(UTC)
        return [
            depth
            if depth.queue not in self._lanes
            else Depth(
                depth.queue,
                depth.ready + lags[self._options.topic(depth.queue)],
                depth.scheduled,
                depth.leased,
                depth.dead,
                max(depth.oldest_age_s, _age_s(firsts.get(self._options.topic(depth.queue)), now)),
            )
            for depth in depths
        ]

    async def pause(self, queue: str, tx: Connection | None = None) -> None:
        await self._postgres.pause(queue, tx)

    async def resume(self, queue: str, tx: Connection | None = None) -> None:
        await self._postgres.resume(queue, tx)

    async def paused(self) -> set[str]:
        return await self._postgres.paused()

    async def limit_keys(self, queue: str, policy: KeyPolicy) -> None:
        await self._postgres.limit_keys(queue, policy)

    async def list_dead(
        self, workspace_id: UUID | None, queue: str | None, before: int | None, limit: int
    ) -> list[DeadJob]:
        return await self._postgres.list_dead(workspace_id, queue, before, limit)

    async def redrive(
        self, workspace_id: UUID | None, ids: Sequence[int], tx: Connection | None = None
    ) -> set[int]:
        return await self._postgres.redrive(workspace_id, ids, tx)

    async def discard(
        self, workspace_id: UUID | None, ids: Sequence[int], tx: Connection | None = None
    ) -> set[int]:
        return await self._postgres.discard(workspace_id, ids, tx)


def _apart(jobs: Sequence[LeasedJob]) -> tuple[list[LoggedJob], list[LeasedJob]]:
    logged: list[LoggedJob] = []
    own: list[LeasedJob] = []
    for job in jobs:
        if isinstance(job, LoggedJob):
            logged.append(job)
        else:
            own.append(job)
    return logged, own


def _age_s(first: datetime | None, now: datetime) -> float:
    return 0.0 if first is None else max(0.0, (now - first).total_seconds())


async def _wake_by(topic: Any, arrived: asyncio.Event) -> None:
    while True:
        if await topic.wait(3600.0):
            arrived.set()
