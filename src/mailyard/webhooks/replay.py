"""Telling an endpoint once more what happened in a span of time: the job `webhook-replay`.

The stream of live events is read again behind a stored place, so a replay that is cut short goes on
where it was. Events keep their ids: a receiver that remembers them takes each once.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from enum import Enum
from uuid import UUID

import msgspec

from mailyard.core import ids
from mailyard.core.clock import Clock, SystemClock
from mailyard.core.errors import Conflict, InvalidInput, NotFound
from mailyard.queue.batch import Batch, Handler
from mailyard.queue.engine import Engine
from mailyard.queue.job import WEBHOOKS, NewJob
from mailyard.storage.database import Connection, Database
from mailyard.storage.partitions import LIVE_EVENT_KEEP_DAYS
from mailyard.webhooks.endpoint import SQL, Webhook, Webhooks
from mailyard.webhooks.fan_out import Listening, add_deliveries, job_of, matches

REPLAY = "webhook-replay"
_ROWS = 200
_SETTLING_S = 1.0
_SHOWN = 20


class _Step(Enum):
    MORE = "more"
    UNSETTLED = "unsettled"  # an older transaction may still write into the span
    OVER = "over"


class Replay(msgspec.Struct, frozen=True):
    """A span of time to be told again; `events` that are in the line by now; over at `done_at`."""

    id: UUID
    webhook_id: UUID
    since: datetime
    until: datetime
    events: int
    done_at: datetime | None


class Replays:
    """Starts replays, shows them, and handles their jobs."""

    def __init__(
        self,
        *,
        database: Database,
        engine: Engine,
        webhooks: Webhooks,
        clock: Clock | None = None,
    ) -> None:
        self._database = database
        self._engine = engine
        self._webhooks = webhooks
        self._clock = clock or SystemClock()

    def handler(self) -> Handler:
        """What a worker needs to run this."""
        return Handler(kind=REPLAY, queue=WEBHOOKS, handle=self.handle, concurrency=2)

    async def start(
        self,
        workspace_id: UUID,
        webhook_id: UUID,
        since: datetime,
        until: datetime | None,
        tx: Connection,
    ) -> Replay:
        """Have what happened from `since` to `until` (None: now) told again.

        Raises NotFound, Conflict for an endpoint that is disabled, InvalidInput for a span that is
        empty, or begins before the oldest event that is kept.
        """
        webhook = await self._webhooks.get(workspace_id, webhook_id, tx)
        if not webhook.enabled:
            raise Conflict("the webhook is disabled: enable it first")
        now = self._clock.now()
        until = min(until or now, now)
        if since >= until:
            raise InvalidInput("expected a time before `until` and before now", field="since")
        kept_since = now - timedelta(days=LIVE_EVENT_KEEP_DAYS)
        if since < kept_since:
            raise InvalidInput(
                f"events are kept for {LIVE_EVENT_KEEP_DAYS} days: ask from "
                f"{kept_since.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ} on",
                field="since",
            )
        replay_id = ids.uuid7()
        await self._database.execute(
            SQL.add_replay, workspace_id, webhook_id, replay_id, since, until, tx=tx
        )
        await self._engine.enqueue(
            [NewJob(WEBHOOKS, REPLAY, replay_id.bytes, workspace_id, max_attempts=100)], tx
        )
        return Replay(replay_id, webhook_id, since, until, 0, None)

    async def page(self, workspace_id: UUID, webhook_id: UUID) -> Sequence[Replay]:
        """The last replays of an endpoint."""
        rows = await self._database.fetch(SQL.replays, workspace_id, webhook_id, _SHOWN)
        return [Replay(*row) for row in rows]

    async def handle(self, batch: Batch) -> None:
        """Put the events of a span into the line, some hundred rows a transaction."""
        (job,) = batch.jobs
        assert job.workspace_id is not None, "a replay belongs to a workspace"
        while not batch.stopping.is_set():
            async with self._database.transaction() as tx:
                step = await self._step(job.workspace_id, UUID(bytes=job.payload), tx)
            if step is _Step.OVER:
                return
            if step is _Step.UNSETTLED:
                await batch.release([job], _SETTLING_S)
                return
        await batch.release([job])

    async def _step(self, workspace_id: UUID, replay_id: UUID, tx: Connection) -> "_Step":
        """Some rows further."""
        row = await self._database.fetchrow(SQL.replay, workspace_id, replay_id, tx=tx)
        if row is None or row["done_at"] is not None:
            return _Step.OVER
        try:
            webhook = await self._webhooks.get(workspace_id, row["webhook_id"], tx)
        except NotFound:
            return _Step.OVER
        found = await self._database.fetch(
            SQL.read_again,
            workspace_id,
            row["xid"],
            row["row_id"],
            row["since"],
            row["until"],
            _ROWS,
            list(webhook.filter.kinds),
            tx=tx,
        )
        now = self._clock.now()
        listening = [_as_listening(webhook)]
        lines = [delivery for one in found for _, delivery in matches(one, listening)]
        last = len(found) < _ROWS
        over = last and row["settled"]
        place = (found[-1]["xid"], found[-1]["id"]) if found else (row["xid"], row["row_id"])
        await self._database.fetchrow(SQL.hold_webhook, workspace_id, webhook.id, tx=tx)
        await add_deliveries(self._database, lines, now, tx)
        await self._database.execute(
            SQL.move_replay,
            workspace_id,
            replay_id,
            *place,
            len(lines),
            now if over else None,
            tx=tx,
        )
        if lines and webhook.enabled:
            await self._engine.enqueue(
                [job_of(workspace_id, webhook.id, slow=webhook.slow or webhook.failures > 0)], tx
            )
        if over:
            return _Step.OVER
        return _Step.UNSETTLED if last else _Step.MORE


def _as_listening(webhook: Webhook) -> Listening:
    """The endpoint as one that was told from the beginning on."""
    return Listening(
        webhook.id,
        webhook.workspace_id,
        0,
        webhook.filter,
        webhook.slow or webhook.failures > 0,
        False,
    )
