"""Jobs in: straight into the log, by the outbox, or to the engine on PostgreSQL.

By the log goes what is due now. A unique key is claimed in PostgreSQL, in the table where those of
all other jobs stand, and by the same statement its job goes into the outbox. What has a time or a
key with limits, or is urgent, is PostgreSQL's.
"""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from typing import Any

from mailyard.core.errors import Unavailable
from mailyard.queue.engine import WakeUps
from mailyard.queue.engines.kafka.options import KafkaOptions
from mailyard.queue.engines.kafka.outbox import OUTBOX_TOPIC, Ids
from mailyard.queue.engines.kafka.placing import key_of, partition_of
from mailyard.queue.engines.kafka.record import DIRECT, encode
from mailyard.queue.engines.kafka.sender import Outgoing, Sender
from mailyard.queue.engines.kafka.topics import JUST_MADE_S, Topics
from mailyard.queue.engines.postgres import PostgresEngine, stored_key
from mailyard.queue.job import NewJob, check
from mailyard.storage.bind import bound
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

NORMAL_PRIORITY = 5  # what is more urgent does not stand in the log's line
SEND_S = 10.0  # an enqueue outside a transaction gives up

_SQL = load("kafka")


class Adding:
    """The enqueues of one process. `lanes` have their jobs in the log."""

    def __init__(
        self,
        *,
        postgres: PostgresEngine,
        database: Database,
        bus: WakeUps,
        options: KafkaOptions,
        topics: Topics,
        lanes: Collection[str],
        now: Callable[[], datetime | None],
    ) -> None:
        self._postgres = postgres
        self._database = database
        self._bus = bus
        self._options = options
        self._topics = topics
        self._lanes = lanes
        self._now = now
        self._sender = Sender(options, give_up_s=SEND_S)
        self._ids = Ids(database)
        self._batches = 0

    async def close(self) -> None:
        await self._sender.close()

    async def enqueue(
        self, jobs: Sequence[NewJob], tx: Connection | None = None
    ) -> list[int | None]:
        """As the engine's `enqueue`."""
        for job in jobs:
            check(job)
        plain, unique, others = self._ways(jobs)
        drawn = iter(await self._ids.draw(len(plain) + len(unique), tx))
        ids: list[int | None] = [
            next(drawn) if place in plain or place in unique else None for place in range(len(jobs))
        ]
        for put, places in (
            (self._put_plain, plain),
            (self._put_unique, unique),
            (self._put_others, others),
        ):
            if places:
                put_ids = await put([jobs[n] for n in places], [ids[n] or 0 for n in places], tx)
                for place, job_id in zip(places, put_ids, strict=True):
                    ids[place] = job_id
        return ids

    async def statement(self, jobs: Sequence[NewJob]) -> str:
        """As of the engine on PostgreSQL: the enqueue of `jobs`, of one kind of lane, as text."""
        logged = [self._is_logged(job) for job in jobs]
        if not any(logged):
            return await self._postgres.statement(jobs)
        assert all(logged), "jobs of one statement go one way"
        assert not any(job.unique_key for job in jobs), "a unique key may stand: ask"
        for job in jobs:
            check(job)
        return bound(_SQL.put, *self._to_put(jobs, await self._ids.draw(len(jobs))))

    def announce(self, queues: Sequence[str]) -> None:
        """As the engine's `announce`."""
        if not set(self._lanes).isdisjoint(queues):
            self._bus.announce(OUTBOX_TOPIC)
        self._postgres.announce(queues)

    def _is_logged(self, job: NewJob) -> bool:
        return job.queue in self._lanes and not (
            job.run_at or job.limit_key or job.priority < NORMAL_PRIORITY
        )

    def _ways(
        self, jobs: Sequence[NewJob]
    ) -> tuple[dict[int, None], dict[int, None], dict[int, None]]:
        """The places of those that go by the log, of those with a unique key, of the others."""
        plain: dict[int, None] = {}
        unique: dict[int, None] = {}
        others: dict[int, None] = {}
        for place, job in enumerate(jobs):
            if not self._is_logged(job):
                others[place] = None
            elif job.unique_key is None:
                plain[place] = None
            else:
                unique[place] = None
        return plain, unique, others

    async def _put_plain(
        self, jobs: Sequence[NewJob], ids: Sequence[int], tx: Connection | None
    ) -> Sequence[int | None]:
        if tx is not None or self._sender.away:
            await self._database.fetchval(_SQL.put, *self._to_put(jobs, ids), tx=tx)
            self._postgres.announce_after(tx, [OUTBOX_TOPIC])
        else:
            await self._send(jobs, ids)
        return ids

    async def _put_unique(
        self, jobs: Sequence[NewJob], ids: Sequence[int], tx: Connection | None
    ) -> Sequence[int | None]:
        """By the outbox always, for the claim and the job go in one commit."""
        claimed = await self._database.fetchval(
            _SQL.put_unique,
            *self._to_put(jobs, ids)[:4],
            await self._postgres.lines_of(jobs),
            [job.max_attempts for job in jobs],
            [job.kind for job in jobs],
            [stored_key(job) for job in jobs],
            self._now(),
            tx=tx,
        )
        if claimed:
            self._postgres.announce_after(tx, [OUTBOX_TOPIC])
        ours = set(claimed or ())
        return [job_id if job_id in ours else None for job_id in ids]

    async def _put_others(
        self, jobs: Sequence[NewJob], _: Sequence[int], tx: Connection | None
    ) -> Sequence[int | None]:
        return await self._postgres.enqueue(jobs, tx)

    def _to_put(self, jobs: Sequence[NewJob], ids: Sequence[int]) -> tuple[Any, ...]:
        at = self._now() or datetime.now(UTC)
        counts = Counter(job.queue for job in jobs)
        return (
            list(ids),
            [job.queue for job in jobs],
            [key_of(job.workspace_id) for job in jobs],
            [encode(job, job_id, at) for job, job_id in zip(jobs, ids, strict=True)],
            list(counts),
            list(counts.values()),
        )

    async def _send(self, jobs: Sequence[NewJob], ids: Sequence[int]) -> None:
        """Straight into the log. Raises Unavailable when not every record was acknowledged."""
        at = self._now() or datetime.now(UTC)
        self._batches += 1
        records = []
        for job, job_id in zip(jobs, ids, strict=True):
            topic = self._options.topic(job.queue)
            partitions = await self._topics.partitions(topic, JUST_MADE_S)
            part = partition_of(key_of(job.workspace_id), self._batches, partitions)
            records.append(Outgoing(topic, part, DIRECT + encode(job, job_id, at)))
        failed = [error for error in await self._sender.send(records) if error is not None]
        if failed:
            raise Unavailable(f"Kafka did not take {len(failed)} of {len(jobs)} jobs: {failed[0]}")
