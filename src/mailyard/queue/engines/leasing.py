"""Leasing from the lines of the PostgreSQL engine: who waits is woken, who holds what is known."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from time import monotonic

import asyncpg

from mailyard.core.limits import LEASE_S
from mailyard.observe.trace import unpacked
from mailyard.queue.engine import Waiting, WakeUps, topic_of
from mailyard.queue.engines.lines import Lines
from mailyard.queue.engines.stage import LINES_TOPIC, Stage
from mailyard.queue.job import LeasedJob
from mailyard.storage.database import Database
from mailyard.storage.queries import load

_KEPT_LEASES = 1_000  # leases whose open jobs are remembered

_SQL = load("queue")


class OpenLeases:
    """The leases of this process, each with its jobs that are not surely settled."""

    def __init__(self) -> None:
        self._open: dict[int, set[int]] = {}

    def add(self, token: int, jobs: Sequence[LeasedJob]) -> None:
        self._open[token] = {job.id for job in jobs}
        if len(self._open) > _KEPT_LEASES:
            self._open.pop(next(iter(self._open)))

    def ended_by(self, jobs: Sequence[LeasedJob], tokens: set[int]) -> list[int]:
        """The leases that surely hold nothing more after `jobs`. One that is left out runs out.

        One too many would be the loss of a job: without its lease nobody rescues it. So whoever was
        settled in a transaction, which may roll back, counts as open.
        """
        ids = {job.id for job in jobs}
        return [
            token for token in tokens if (held := self._open.get(token)) is not None and held <= ids
        ]

    def settle(self, jobs: Sequence[LeasedJob]) -> None:
        """Jobs whose settling has committed."""
        for job in jobs:
            held = self._open.get(job.token)
            if held is not None:
                held.discard(job.id)
                if not held:
                    del self._open[job.token]


class Leasing:
    """Takes jobs from the lines. One a process."""

    def __init__(
        self,
        database: Database,
        bus: WakeUps,
        lines: Lines,
        stage: Stage,
        open_leases: OpenLeases,
        now: Callable[[], datetime | None],
    ) -> None:
        self._database = database
        self._bus = bus
        self._lines = lines
        self._stage = stage
        self._open = open_leases
        self._now = now
        self._suspects_behind: dict[int, int] = {}  # line -> place of the last suspect taken

    async def lease(
        self,
        queues: Sequence[str],
        limit: int,
        wait_s: float,
        worker: str,
        suspects: bool,
    ) -> list[LeasedJob]:
        """As the engine's `lease`."""
        leased = await self._lease_now(queues, limit, worker, suspects)
        if leased or wait_s <= 0:
            return leased
        until_s = monotonic() + wait_s
        woken = asyncio.Event()
        topics = [self._bus.subscribe(topic_of(queue)) for queue in queues]
        topics.append(self._bus.subscribe(LINES_TOPIC))
        waits = [asyncio.create_task(_wake_by(topic, woken)) for topic in topics]
        try:
            # What was announced before we subscribed is found by this look.
            leased = await self._lease_now(queues, limit, worker, suspects)
            while not leased and (left_s := until_s - monotonic()) > 0:
                try:
                    async with asyncio.timeout(min(left_s, self._stage.due_in_s())):
                        await woken.wait()
                    woken.clear()
                    # Who was woken asks at once; the next call stages.
                    await self._stage.follow_lines()
                    leased = await self._lease_ready(queues, limit, worker)
                except TimeoutError:
                    pass
                leased = leased or await self._lease_now(queues, limit, worker, suspects)
            return leased
        finally:
            for wait in waits:
                wait.cancel()
            for topic in topics:
                topic.close()

    async def _lease_now(
        self, queues: Sequence[str], limit: int, worker: str, suspects: bool
    ) -> list[LeasedJob]:
        await self._stage.run()
        if suspects and self._stage.suspects:
            found = await self._lease_suspect(queues, worker)
            if found:
                return found
        return await self._lease_ready(queues, limit, worker)

    async def _lease_ready(self, queues: Sequence[str], limit: int, worker: str) -> list[LeasedJob]:
        leased: list[LeasedJob] = []
        asked: set[int] = set()
        while len(leased) < limit:
            started_s = monotonic()
            probes = self._lines.plan(queues, limit - len(leased), started_s, asked)
            if not probes:
                break
            rows = await self._database.fetch(
                _SQL.lease,
                [probe.line.id for probe in probes],
                [probe.line.queue for probe in probes],
                [probe.after for probe in probes],
                [probe.share for probe in probes],
                limit - len(leased),
                worker,
                LEASE_S,
                self._now(),
            )
            taken: dict[int, tuple[int, int]] = {}
            for row in rows:
                jobs, last = taken.get(row["line_id"], (0, 0))
                taken[row["line_id"]] = (jobs + 1, max(last, row["place"]))
            leased += self._handed_over(rows)
            # A line that gave its whole share may have more; the others have been emptied.
            asked.update(p.line.id for p in probes if taken.get(p.line.id, (0, 0))[0] < p.share)
            ended_s = monotonic()
            self._lines.answered(probes, taken, limit - len(leased), ended_s, ended_s - started_s)
        return leased

    async def _lease_suspect(self, queues: Sequence[str], worker: str) -> list[LeasedJob]:
        lines = [
            line_id
            for line_id in self._stage.suspects
            if self._lines.knows(line_id) and self._lines.of_id(line_id).queue in queues
        ]
        if not lines:
            return []
        lines.sort(key=lambda line_id: self._lines.of_id(line_id).priority)
        rows = await self._database.fetch(
            _SQL.lease,
            lines,
            [self._lines.of_id(line_id).queue for line_id in lines],
            [self._suspects_behind.get(line_id, 0) for line_id in lines],
            [1] * len(lines),
            1,
            worker,
            LEASE_S,
            self._now(),
        )
        for row in rows:
            self._suspects_behind[row["line_id"]] = row["place"]
        if not rows:
            self._stage.suspects.difference_update(lines)
            for line_id in lines:
                self._suspects_behind.pop(line_id, None)
        return self._handed_over(rows)

    def _handed_over(self, rows: Sequence[asyncpg.Record]) -> list[LeasedJob]:
        if not rows:
            return []
        token = rows[0]["token"]
        expires_at = rows[0]["expires_at"]
        leased = []
        for (
            job_id,
            line_id,
            _,
            turn,
            attempts,
            crashes,
            most,
            enqueued_at,
            kind,
            stored,
            *_,
        ) in rows:
            payload, marks = unpacked(stored)
            line = self._lines.of_id(line_id)
            leased.append(
                LeasedJob(
                    job_id,
                    line.queue,
                    kind,
                    payload,
                    line.workspace_id,
                    attempts + 1,
                    crashes,
                    most,
                    token,
                    enqueued_at,
                    expires_at,
                    turn,
                    trace=marks,
                )
            )
        self._open.add(token, leased)
        return leased


async def _wake_by(topic: Waiting, woken: asyncio.Event) -> None:
    while True:
        if await topic.wait(3600.0):
            woken.set()
