"""What was told, as rows: attempts with request and answer, and what became of their deliveries."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from mailyard.storage.database import Connection, Database
from mailyard.webhooks.call import Attempt
from mailyard.webhooks.endpoint import SQL


class Waiting(msgspec.Struct, frozen=True):
    """A delivery that waits in a line; `item` is JSON."""

    id: UUID
    event: str
    kind: str
    item: str
    happened_at: datetime
    attempts: int
    attempts_before: int


class Tried(msgspec.Struct, frozen=True):
    """An attempt at a delivery and what becomes of it: waiting (due at `due_at`), delivered or
    dead."""

    waiting: Waiting
    attempt: Attempt
    state: str = "waiting"
    due_at: datetime | None = None


class Recorder:
    """Writes attempts down, many at a time."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def record(
        self,
        workspace_id: UUID,
        tried: Sequence[Tried],
        now: datetime,
        tx: Connection | None = None,
    ) -> None:
        """All of `tried` in one transaction; what another worker has recorded stays as it is."""
        if not tried:
            return None
        if tx is None:
            async with self._database.transaction() as own:
                return await self.record(workspace_id, tried, now, own)
        numbers = [one.waiting.attempts + 1 for one in tried]
        deliveries = [one.waiting.id for one in tried]
        await self._database.execute(
            SQL.record_attempts,
            workspace_id,
            deliveries,
            numbers,
            [one.attempt.at for one in tried],
            [one.attempt.took_ms for one in tried],
            [one.attempt.url for one in tried],
            [_json(one.attempt.request_headers) for one in tried],
            [one.attempt.request_body for one in tried],
            [one.attempt.status for one in tried],
            [_json(one.attempt.answer_headers) for one in tried],
            [one.attempt.answer_body for one in tried],
            [one.attempt.verdict.why for one in tried],
            tx=tx,
        )
        await self._database.execute(
            SQL.record_outcomes,
            workspace_id,
            deliveries,
            numbers,
            [one.state for one in tried],
            [one.due_at for one in tried],
            [one.attempt.status for one in tried],
            [one.attempt.verdict.why for one in tried],
            now,
            min(deliveries),
            max(deliveries),
            tx=tx,
        )
        return None


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
