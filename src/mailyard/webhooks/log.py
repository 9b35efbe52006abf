"""What endpoints were told, as people look at it: the log, dead letters, the test button."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from mailyard.core import ids
from mailyard.core.clock import Clock, SystemClock
from mailyard.core.errors import InvalidInput, NotFound
from mailyard.storage.database import Connection, Database
from mailyard.webhooks.call import Attempt, Caller, Event
from mailyard.webhooks.endpoint import LAST_ID, SQL, Webhooks
from mailyard.webhooks.payload import TEST
from mailyard.webhooks.policy import Outcome
from mailyard.webhooks.record import Recorder, Tried, Waiting

STATES = ("waiting", "delivered", "dead")
REDRIVE_MAX = 10_000  # dead deliveries of one call


class Delivery(msgspec.Struct, frozen=True):
    """An event that an endpoint is told of. `status` and `why` are of the last attempt."""

    id: UUID
    event: str
    kind: str
    happened_at: datetime
    state: str
    attempts: int
    due_at: datetime
    status: int | None
    why: str
    ended_at: datetime | None


class LoggedAttempt(msgspec.Struct, frozen=True):
    """A request and its answer, as far as they are kept: `status` None when none came."""

    number: int
    at: datetime
    took_ms: int
    url: str
    request_headers: Mapping[str, str]
    request_body: str
    status: int | None
    answer_headers: Mapping[str, str]
    answer_body: str
    error: str


class Story(msgspec.Struct, frozen=True):
    """A delivery with every request that was made for it."""

    delivery: Delivery
    webhook_id: UUID
    item: str
    attempts: Sequence[LoggedAttempt]


class Trial(msgspec.Struct, frozen=True):
    """What came of the test button."""

    webhook_id: UUID
    delivery_id: UUID
    event: Event
    attempt: Attempt


class WebhookLog:
    """Reads the log of all workspaces' endpoints; puts dead deliveries back."""

    def __init__(
        self,
        *,
        database: Database,
        webhooks: Webhooks,
        caller: Caller,
        clock: Clock | None = None,
    ) -> None:
        self._database = database
        self._webhooks = webhooks
        self._caller = caller
        self._clock = clock or SystemClock()
        self._recorder = Recorder(database=database)

    async def page(
        self,
        workspace_id: UUID,
        webhook_id: UUID,
        *,
        state: str = "",
        before: UUID | None = None,
        limit: int = 100,
    ) -> Sequence[Delivery]:
        """Deliveries of an endpoint, newest first. Raises NotFound, InvalidInput."""
        if state and state not in STATES:
            raise InvalidInput(f"expected one of {', '.join(STATES)}", field="state")
        await self._webhooks.get(workspace_id, webhook_id)
        rows = await self._database.fetch(
            SQL.deliveries, workspace_id, webhook_id, before or LAST_ID, state, limit
        )
        return [Delivery(*row) for row in rows]

    async def story(
        self, workspace_id: UUID, delivery_id: UUID, tx: Connection | None = None
    ) -> Story:
        """One delivery with its requests and answers. Raises NotFound."""
        row = await self._database.fetchrow(SQL.delivery, workspace_id, delivery_id, tx=tx)
        if row is None:
            raise NotFound("no such delivery of a webhook")
        *fields, webhook_id, item = row
        await self._webhooks.get(workspace_id, webhook_id, tx)  # of one that was removed: nothing
        attempts = await self._database.fetch(SQL.attempts, workspace_id, delivery_id, tx=tx)
        return Story(Delivery(*fields), webhook_id, item, [_logged(*row) for row in attempts])

    async def redrive(
        self,
        workspace_id: UUID,
        webhook_id: UUID,
        delivery_ids: Sequence[UUID] | None,
        tx: Connection,
    ) -> Sequence[UUID]:
        """Put dead deliveries (None: all, up to REDRIVE_MAX) back into the line, as new; which.

        Call `Webhooks.changed` after the commit. Raises NotFound.
        """
        webhook = await self._webhooks.get(workspace_id, webhook_id, tx)
        now = self._clock.now()
        rows = await self._database.fetch(
            SQL.redrive,
            workspace_id,
            webhook_id,
            None if delivery_ids is None else list(delivery_ids),
            REDRIVE_MAX,
            now,
            tx=tx,
        )
        if rows:
            await self._database.execute(SQL.line_due, workspace_id, webhook.id, now, tx=tx)
        return [row["id"] for row in rows]

    async def test(self, workspace_id: UUID, webhook_id: UUID) -> Trial:
        """Tell an endpoint of nothing, now, enabled or not. Give what comes of it to `keep`.

        Raises NotFound.
        """
        webhook = await self._webhooks.get(workspace_id, webhook_id)
        keys = await self._webhooks.secrets(workspace_id, webhook_id)
        delivery_id = ids.uuid7()
        item = {
            "webhook_id": ids.type_id(ids.WEBHOOK, webhook_id),
            "text": "A test, sent by hand: nothing has happened.",
        }
        name = ids.type_id(ids.WEBHOOK_DELIVERY, delivery_id)
        event = Event(name, TEST, self._clock.now(), item)
        attempt = await self._caller.call(workspace_id, webhook, keys, event)
        return Trial(webhook_id, delivery_id, event, attempt)

    async def keep(self, workspace_id: UUID, trial: Trial, tx: Connection) -> Story:
        """Put a test into the log, and give it as the log shows it."""
        event, verdict = trial.event, trial.attempt.verdict
        item = msgspec.json.encode(event.item).decode()
        state = "delivered" if verdict.outcome is Outcome.TAKEN else "dead"
        await self._database.execute(
            SQL.add_test,
            workspace_id,
            trial.webhook_id,
            trial.delivery_id,
            event.id,
            event.kind,
            item,
            event.happened_at,
            state,
            trial.attempt.status,
            verdict.why,
            tx=tx,
        )
        waiting = Waiting(trial.delivery_id, event.id, event.kind, item, event.happened_at, 0, 0)
        tried = [Tried(waiting, trial.attempt, state)]
        await self._recorder.record(workspace_id, tried, self._clock.now(), tx)
        return await self.story(workspace_id, trial.delivery_id, tx)


def _logged(*row: object) -> LoggedAttempt:
    number, at, took_ms, url, asked, body, status, answered, answer, error = row
    return msgspec.convert(
        {
            "number": number,
            "at": at,
            "took_ms": took_ms,
            "url": url,
            "request_headers": msgspec.json.decode(str(asked)),
            "request_body": body,
            "status": status,
            "answer_headers": msgspec.json.decode(str(answered)),
            "answer_body": answer,
            "error": error,
        },
        LoggedAttempt,
    )
