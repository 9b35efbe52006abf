"""Leases out of the log: settled, prolonged, taken over from workers that died.

What comes to its end leaves its mark in the lease's row; whatever goes on (a retry, a suspect, a
dead letter) becomes a job of the engine on PostgreSQL, under its old id.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import structlog

from mailyard.core.limits import LEASE_S
from mailyard.observe.trace import unpacked
from mailyard.queue.engines.kafka.claiming import LoggedJob
from mailyard.queue.engines.kafka.intake import Reader
from mailyard.queue.engines.kafka.lag import Lag
from mailyard.queue.engines.kafka.record import Record, decode, digest, workspace_of
from mailyard.queue.job import CRASHED, NewJob
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import Query, load

LinesOf = Callable[[Sequence[NewJob]], Awaitable[list[int]]]

_SQL = load("kafka")
_LOG = structlog.get_logger(__name__)


class Held:
    """The leases of all processes. `lines_of` is where the engine on PostgreSQL keeps such jobs."""

    def __init__(
        self,
        *,
        database: Database,
        reader: Reader,
        lag: Lag,
        lines_of: LinesOf,
        now: Callable[[], datetime | None],
    ) -> None:
        self._database = database
        self._reader = reader
        self._lag = lag
        self._lines_of = lines_of
        self._now = now

    async def extend(self, jobs: Sequence[LoggedJob]) -> set[int]:
        """As the engine's `extend`."""
        if not jobs:
            return set()
        rows = await self._database.fetch(
            _SQL.extend, *_keys(jobs), list({job.token for job in jobs}), LEASE_S, self._now()
        )
        return _ids(jobs, {(row["token"], row["number"]) for row in rows})

    async def complete(self, jobs: Sequence[LoggedJob], tx: Connection | None) -> set[int]:
        """As the engine's `complete`."""
        if not jobs:
            return set()
        claims = [job for job in jobs if job.claims]
        ids = [job.id for job in claims]
        rows = await self._database.fetch(_SQL.complete, *_keys(jobs), *_keys(claims), ids, tx=tx)
        return _ids(jobs, {(row["token"], row["number"]) for row in rows})

    async def give_back(
        self,
        jobs: Sequence[LoggedJob],
        delay_s: float,
        attempts: int,
        error: str | None,
        tx: Connection | None,
    ) -> set[int]:
        """They go on in PostgreSQL, due in `delay_s`; `attempts` 1 counts this one."""
        rest = (delay_s, self._now(), attempts, error)
        return await self._move(_SQL.give_back, jobs, rest, tx)

    async def bury(self, jobs: Sequence[LoggedJob], error: str, tx: Connection | None) -> set[int]:
        """As the engine's `bury`."""
        return await self._move(_SQL.bury, jobs, (self._now(), error), tx)

    async def is_leased(self, workspace_id: UUID | None, queue: str, payload: bytes) -> bool:
        """As the engine's `is_leased`."""
        workspace = None if workspace_id is None else workspace_id.bytes
        held: bool = await self._database.fetchval(
            _SQL.is_leased, queue, digest(workspace, payload), self._now()
        )
        return held

    async def rescue(self) -> tuple[int, set[str]]:
        """Take over leases that ran out: how many jobs go on as suspects, and of which queues.

        A lease taken over belongs to nobody else while its records are read; what cannot be read
        now stays in it, and is taken over once more when it runs out again.
        """
        rescued = 0
        queues: set[str] = set()
        rows = await self._database.fetch(_SQL.take_over, self._now(), LEASE_S)
        for row in rows:
            places = _open_places(row)
            found = await self._records(row["topic"], places)
            gone = await self._gone(row["topic"], places.keys() - found.keys())
            if gone:
                _LOG.error("jobs are missing in the log", topic=row["topic"], places=sorted(gone))
                numbers = [places[place] for place in gone]
                await self._database.fetch(
                    _SQL.complete, [row["token"]] * len(numbers), numbers, [], [], []
                )
            if found:
                jobs = [(places[place], record) for place, record in found.items()]
                rescued += await self._go_on(row["token"], row["queue"], jobs)
                queues.add(row["queue"])
        return rescued, queues

    async def _records(
        self, topic: str, places: Mapping[tuple[int, int], int]
    ) -> dict[tuple[int, int], Record]:
        """The records at (partition, offset), as far as they can be read now."""
        ranges: dict[int, tuple[int, int]] = {}
        for part, offset in places:
            first, end = ranges.get(part, (offset, offset + 1))
            ranges[part] = (min(first, offset), max(end, offset + 1))
        return {
            (part, offset): decode(value)
            for part, fetched in (await self._reader.read(topic, ranges)).items()
            for offset, value in fetched
            if (part, offset) in places
        }

    async def _gone(self, topic: str, missing: set[tuple[int, int]]) -> set[tuple[int, int]]:
        """Which of the places are before the beginning of the log: nobody will ever read them."""
        if not missing:
            return set()
        begins = await self._lag.begins({(topic, part) for part, _ in missing})
        return {place for place in missing if place[1] < begins.get((topic, place[0]), 0)}

    async def _go_on(self, token: int, queue: str, jobs: Sequence[tuple[int, Record]]) -> int:
        news = [NewJob(queue, r.kind, unpacked(r.payload)[0], workspace_of(r)) for _, r in jobs]
        moved: int = await self._database.fetchval(
            _SQL.rescue,
            [token] * len(jobs),
            [number for number, _ in jobs],
            [record.id for _, record in jobs],
            await self._lines_of(news),
            [record.max_attempts for _, record in jobs],
            [record.enqueued_at for _, record in jobs],
            [record.kind for _, record in jobs],
            [record.payload for _, record in jobs],
            self._now(),
            CRASHED,
        )
        return moved

    async def _move(
        self,
        query: Query,
        jobs: Sequence[LoggedJob],
        rest: tuple[Any, ...],
        tx: Connection | None,
    ) -> set[int]:
        if not jobs:
            return set()
        news = [NewJob(job.queue, job.kind, job.payload, job.workspace_id) for job in jobs]
        ids = await self._database.fetchval(
            query,
            *_keys(jobs),
            [job.id for job in jobs],
            await self._lines_of(news),
            [job.max_attempts for job in jobs],
            [job.enqueued_at for job in jobs],
            [job.kind for job in jobs],
            [job.stored for job in jobs],
            *rest,
            tx=tx,
        )
        return set(ids or ())


def _keys(jobs: Sequence[LoggedJob]) -> tuple[list[int], list[int]]:
    return [job.token for job in jobs], [job.number for job in jobs]


def _ids(jobs: Sequence[LoggedJob], keys: set[tuple[int, int]]) -> set[int]:
    return {job.id for job in jobs if (job.token, job.number) in keys}


def _open_places(row: Any) -> dict[tuple[int, int], int]:
    """(partition, offset) of each job of a lease that is not done, and its number."""
    done = {number for part in row["done"] for number in range(part.lower, part.upper)}
    places = {}
    for part, first, start, count in zip(
        row["parts"], row["firsts"], row["starts"], row["counts"], strict=True
    ):
        for number in range(start, start + count):
            if number not in done:
                places[part, first + number - start] = number
    return places
