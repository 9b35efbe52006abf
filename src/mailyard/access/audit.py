"""The audit log: who changed what, and how it was before and after.

An entry is written in the transaction of the change, so that neither stands without the other. An
accepted email has no row beside its own, which says who sent it: it is read as an entry.

The id is a UUIDv7: its time is the entry's time, and a time range is an id range (DESIGN
section 4).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from mailyard.core import ids
from mailyard.core.errors import InvalidInput
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

_SQL = load("audit")
SEND = "email.send"  # the action of an accepted email
_LAST = UUID(int=(1 << 128) - 1)
_FIRST = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts. `kind`: user, key, command or system; `name`: an address, a key's id, a host."""

    kind: str
    name: str
    workspace_id: UUID


# Kinds of actors who run the installation itself and stand above its workspaces.
OPERATORS = frozenset({"command", "system"})


@dataclass(frozen=True, slots=True)
class Change:
    """One change: `action` as in `inbox.create`, `subject` a TypeID or a name."""

    action: str
    subject: str
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """A change as it was recorded."""

    id: UUID
    at: datetime
    actor_kind: str
    actor: str
    action: str
    subject: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


def _json(value: Mapping[str, Any] | None) -> str | None:
    if value is None:
        return None
    # PostgreSQL's jsonb has no NUL; a text that holds one is kept readable instead of refused.
    return msgspec.json.encode(value).decode().replace("\\u0000", "\\ufffd")


def _value(text: str | None) -> dict[str, Any] | None:
    return None if text is None else msgspec.json.decode(text, type=dict[str, Any])


class Audit:
    """Writes and reads the audit log."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def record(
        self,
        actor: Actor,
        action: str,
        subject: str,
        before: Mapping[str, Any] | None = None,
        after: Mapping[str, Any] | None = None,
        tx: Connection | None = None,
    ) -> None:
        """Add one entry, within `tx` when given."""
        await self.record_many(actor, [Change(action, subject, before, after)], tx)

    async def record_many(
        self, actor: Actor, changes: Sequence[Change], tx: Connection | None = None
    ) -> None:
        """Add entries of one actor in one statement, in order."""
        if not changes:
            return
        count = len(changes)
        await self._database.execute(
            _SQL.record,
            sorted(ids.uuid7() for _ in changes),
            [actor.workspace_id] * count,
            [actor.kind] * count,
            [actor.name] * count,
            [change.action for change in changes],
            [change.subject for change in changes],
            [_json(change.before) for change in changes],
            [_json(change.after) for change in changes],
            tx=tx,
        )

    async def list(
        self,
        workspace_id: UUID,
        *,
        actor: str | None = None,
        action: str | None = None,
        subject: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        before_id: UUID | None = None,
        limit: int = 100,
    ) -> list[AuditEntry]:
        """Entries, newest first. `action` is whole (`inbox.create`) or its first word (`inbox`).

        `since` is inclusive, `until` and `before_id` (the last entry of the page before) are not.
        """
        low = ids.lowest_at(since) if since is not None else _FIRST
        high = ids.lowest_at(until) if until is not None else _LAST
        if before_id is not None and before_id < high:
            high = before_id
        rows = await self._database.fetch(
            _SQL.list_entries, workspace_id, low, high, actor, action, subject, limit
        )
        entries = [
            AuditEntry(
                id=row["id"],
                at=ids.time_of(row["id"]),
                actor_kind=row["actor_kind"],
                actor=row["actor"],
                action=row["action"],
                subject=row["subject"],
                before=_value(row["before"]),
                after=_value(row["after"]),
            )
            for row in rows
        ]
        if action in (None, SEND, SEND.partition(".")[0]):
            entries += await self._sent(workspace_id, low, high, actor, subject, limit)
            entries.sort(key=lambda entry: entry.id, reverse=True)
        return entries[:limit]

    async def _sent(
        self,
        workspace_id: UUID,
        low: UUID,
        high: UUID,
        actor: str | None,
        subject: str | None,
        limit: int,
    ) -> Sequence[AuditEntry]:
        """Accepted emails as entries: their own rows say who sent what."""
        email_id = None
        if subject is not None:
            try:
                email_id = ids.parse_type_id(ids.EMAIL, subject, "subject")
            except InvalidInput:
                return []  # it is something else
        rows = await self._database.fetch(
            _SQL.list_sent_emails, workspace_id, low, high, actor, email_id, limit
        )
        return [
            AuditEntry(
                id=row["id"],
                at=ids.time_of(row["id"]),
                actor_kind=row["actor_kind"],
                actor=row["actor"],
                action=SEND,
                subject=ids.type_id(ids.EMAIL, row["id"]),
                before=None,
                after={
                    "from": row["sender"],
                    "subject": row["subject"],
                    "type": row["type"],
                    "send_at": row["send_at"] and row["send_at"].isoformat(),
                },
            )
            for row in rows
        ]
