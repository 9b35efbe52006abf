"""From the stream of live events into the lines of endpoints.

Nobody's transaction carries anything for webhooks: the stream is read behind a stored cursor, and
what is put into lines commits with the cursor's next place. So an event comes into each line once,
whatever dies. Every worker runs one of these; who holds the cursor's row deals, the others see that
and go.

An endpoint is told of the events whose transaction is not older than its own. A row of the stream
is read only when no older transaction runs any more, so an endpoint that wants it is always seen.
"""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import structlog

from mailyard.bus.bus import Bus, Subscription
from mailyard.bus.filter import EventFilter
from mailyard.bus.live import TOPIC as EVENTS
from mailyard.core import ids
from mailyard.core.backoff import Backoff
from mailyard.core.clock import Clock, SystemClock
from mailyard.observe import metrics
from mailyard.queue.engine import Engine
from mailyard.queue.job import WEBHOOKS, KeyPolicy, NewJob
from mailyard.storage.database import Connection, Database
from mailyard.webhooks.endpoint import SQL, TOPIC

TELL = "webhook-tell"  # the kind of the job that empties a line
SLOW = "slow"  # the limit key that all lines of failing and slow endpoints share
SLOW_PLACES = 48  # of them, over all workers

_ROWS = 500
_QUICK_S = 0.02
_CALM_S = (
    1.0  # between looks without a wake-up: what one that was lost costs, and lines that are due
)
_NOBODY_S = 10.0  # between looks whether there is any endpoint at all
_NO_LAG = timedelta()
_LINES = 200  # that are due, of one look
_AGAIN = Backoff(first_s=0.5, cap_s=10.0)
_LOG = structlog.get_logger(__name__)


class Listening(msgspec.Struct, frozen=True):
    """An endpoint, as far as dealing goes."""

    id: UUID
    workspace_id: UUID
    from_xid: int
    filter: EventFilter
    slow: bool
    rests: bool


class FanOut:
    """One a worker. `start` it, `close` it at the end."""

    def __init__(
        self, *, database: Database, engine: Engine, bus: Bus, clock: Clock | None = None
    ) -> None:
        self._database = database
        self._engine = engine
        self._bus = bus
        self._clock = clock or SystemClock()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to deal, as long as there is any endpoint."""
        await self._engine.limit_keys(WEBHOOKS, KeyPolicy(concurrency=SLOW_PLACES))
        self._task = asyncio.create_task(self._run(), name="webhook-fan-out")

    async def close(self) -> None:
        """End between two looks; what a look had begun is rolled back and dealt by another."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def look(self) -> bool:
        """Deal what there is now, and wake lines that are due. Whether there is more to deal."""
        async with self._database.transaction() as tx:
            cursor = await self._database.fetchrow(SQL.hold_cursor, tx=tx)
            if cursor is None:
                metrics.WEBHOOK_LAG.set(0)
                return False  # another process deals
            first = await self._database.fetchval(SQL.anybody, tx=tx)
            if first is None:
                return False
            # Nobody wants what is older than every endpoint.
            xid, row_id = max((cursor["xid"], cursor["id"]), (first, -1))
            rows = await self._database.fetch(SQL.read_events, xid, row_id, _ROWS, tx=tx)
            jobs: dict[UUID, NewJob] = {}
            lag = self._clock.now() - rows[0]["at"] if rows else _NO_LAG
            metrics.WEBHOOK_LAG.set(max(0.0, lag.total_seconds()))
            if rows:
                jobs = await self._deal(rows, tx)
                await self._database.execute(
                    SQL.move_cursor, rows[-1]["xid"], rows[-1]["id"], tx=tx
                )
            for due in await self._database.fetch(SQL.take_due, self._clock.now(), _LINES, tx=tx):
                jobs[due["id"]] = job_of(due["workspace_id"], due["id"], slow=due["slow"])
            await self._engine.enqueue(list(jobs.values()), tx)
        return len(rows) == _ROWS

    async def _deal(self, rows: Sequence[asyncpg.Record], tx: Connection) -> dict[UUID, NewJob]:
        """Put the events of `rows` into lines; the jobs of those lines that may be told now."""
        wanted = [row for row in rows if row["items"] is not None]
        if not wanted:
            return {}
        now = self._clock.now()
        listening: dict[UUID, list[Listening]] = {}
        for row in await self._database.fetch(
            SQL.hold_listening, list({row["workspace_id"] for row in wanted}), now, tx=tx
        ):
            listening.setdefault(row["workspace_id"], []).append(listening_of(row))
        jobs: dict[UUID, NewJob] = {}
        lines = []
        for row in wanted:
            for endpoint, delivery in matches(row, listening.get(row["workspace_id"], ())):
                lines.append(delivery)
                if not endpoint.rests:
                    jobs[endpoint.id] = job_of(
                        endpoint.workspace_id, endpoint.id, slow=endpoint.slow
                    )
        await add_deliveries(self._database, lines, now, tx)
        return jobs

    async def _run(self) -> None:
        changes, events = self._bus.subscribe(TOPIC), self._bus.subscribe(EVENTS)
        random, failures = Random(), 0
        try:
            while True:
                try:
                    if await self._database.fetchval(SQL.anybody) is None:
                        await changes.wait(_NOBODY_S)
                        continue
                    await self._follow(changes, events)
                    failures = 0
                except Exception as error:
                    failures += 1
                    _LOG.warning("webhooks.fan_out_interrupted", error=str(error))
                    await asyncio.sleep(_AGAIN.delay_s(failures, random))
        finally:
            changes.close()
            events.close()

    async def _follow(self, changes: Subscription, events: Subscription) -> None:
        """Look until endpoints have changed. What woke us is often not settled yet
        (bus/live.py), so a wake-up is followed by a few quick looks."""
        pause_s = _QUICK_S
        while not changes.heard():
            while await self.look():
                pass
            woken = await events.wait(pause_s)
            pause_s = _QUICK_S if woken else min(_CALM_S, pause_s * 2)


def job_of(workspace_id: UUID, webhook_id: UUID, *, slow: bool) -> NewJob:
    """The job that empties the line of an endpoint: one at a time for each."""
    return NewJob(
        WEBHOOKS,
        TELL,
        webhook_id.bytes,
        workspace_id,
        unique_key=str(webhook_id),
        limit_key=SLOW if slow else None,
        max_attempts=1000,
    )


async def add_deliveries(
    database: Database, lines: Sequence[tuple[Any, ...]], now: datetime, tx: Connection
) -> None:
    """Put `lines`, as `matches` makes them, into the lines of their endpoints, in their order."""
    if lines:
        columns = map(list, zip(*lines, strict=True))
        await database.execute(SQL.add_deliveries, *columns, now, tx=tx)


def matches(
    row: asyncpg.Record, listening: Sequence[Listening]
) -> Iterator[tuple[Listening, tuple[Any, ...]]]:
    """Who wants which event of a row, as the columns of its delivery."""
    mine = [
        one for one in listening if one.from_xid <= row["xid"] and row["kind"] in one.filter.kinds
    ]
    if not mine:
        return
    items: list[dict[str, Any]] = msgspec.json.decode(row["items"])
    for nth, item in enumerate(items, 1):
        for endpoint in mine:
            if endpoint.filter.wants(row["kind"], item):
                yield (
                    endpoint,
                    (
                        ids.uuid7(),
                        endpoint.workspace_id,
                        endpoint.id,
                        f"{row['xid']}-{row['id']}-{nth}",
                        row["kind"],
                        msgspec.json.encode(item).decode(),
                        row["at"],
                    ),
                )


def listening_of(row: asyncpg.Record) -> Listening:
    return Listening(
        row["id"],
        row["workspace_id"],
        row["from_xid"],
        msgspec.json.decode(row["filter"], type=EventFilter),
        row["slow"],
        bool(row["rests"]),
    )
