"""Verdicts as they are kept, and what inboxes do with forged mail."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import IntEnum
from uuid import UUID

import asyncpg
import msgspec

from mailyard.core.errors import NotFound
from mailyard.core.ids import time_of
from mailyard.observe.metrics import QUERY_SECONDS
from mailyard.protocol.authentication import Standing, Verdict
from mailyard.protocol.authentication_results import field_value
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load
from mailyard.storage.raw_mail import IN_ROWS, RawMail

QUERIES = load("verdict")
COLUMNS = ("message_id", "retention_days", "workspace_id", "standing", "detail")
COPY_SECONDS = QUERY_SECONDS.labels("verdict.copy")

WAITING = "waiting"
REFUSED = "refused"

_DETAIL = msgspec.json.Decoder(Verdict)
_NEWEST = UUID(int=(1 << 128) - 1)


class OnForged(IntEnum):
    """What an inbox does with mail whose author is forged (`Standing.FORGED`)."""

    ACCEPT = 0
    TAG = 1  # it comes in and is marked
    REFUSE = 2  # it is kept out: seen by who looks for it, never bounced


class HeldMessage(msgspec.Struct, frozen=True, gc=False):
    """A mail that an inbox keeps out. `state` is WAITING (for its verdict) or REFUSED."""

    id: UUID
    state: str
    recipient: str
    received_at: datetime
    from_address: str
    from_name: str
    subject: str
    size_bytes: int


class HeldPage(msgspec.Struct, frozen=True):
    """Newest first. `next_before` goes into the next call's `before`; None at the end."""

    items: list[HeldMessage]
    next_before: UUID | None


class Verdicts:
    """Of all workspaces. `authserv_id` is our name in Authentication-Results (RFC 8601 2.5)."""

    def __init__(
        self, *, database: Database, authserv_id: str, raw_mail: RawMail = IN_ROWS
    ) -> None:
        self._database = database
        self._authserv_id = authserv_id
        self._raw_mail = raw_mail

    async def get(self, workspace_id: UUID, message_id: UUID) -> Verdict | None:
        """None: it is not judged yet, or there is no such message."""
        row = await self._database.fetchrow(QUERIES.get, workspace_id, message_id)
        return None if row is None else _DETAIL.decode(row["detail"])

    async def standings(
        self, workspace_id: UUID, message_ids: Sequence[UUID]
    ) -> dict[UUID, Standing]:
        """What messages stand as; those without a verdict are left out."""
        if not message_ids:
            return {}
        ids = list(message_ids)
        rows = await self._database.fetch(QUERIES.standings, workspace_id, ids, min(ids), max(ids))
        return {row["message_id"]: Standing(row["standing"]) for row in rows}

    def field(self, verdict: Verdict) -> str:
        """The value of an Authentication-Results field, folded."""
        return field_value(self._authserv_id, verdict.methods())

    async def policy(self, workspace_id: UUID, inbox_id: UUID, address: str) -> OnForged:
        """What an inbox does, of which `address` is the one it was made with. Raises NotFound."""
        found = await self._database.fetchval(QUERIES.policy, workspace_id, inbox_id, address)
        if found is None:
            raise NotFound("no such inbox")
        return OnForged(found)

    async def set_policy(
        self, workspace_id: UUID, inbox_id: UUID, address: str, policy: OnForged, tx: Connection
    ) -> OnForged:
        """Let an inbox do `policy` from the next mail on; what it did before. Raises NotFound."""
        before = await self._database.fetchval(
            QUERIES.set_policy, workspace_id, inbox_id, address, int(policy), tx=tx
        )
        if before is None:
            raise NotFound("no such inbox")
        return OnForged(before)

    async def held(
        self,
        workspace_id: UUID,
        inbox_id: UUID,
        retention_days: int,
        *,
        before: UUID | None = None,
        limit: int,
    ) -> HeldPage:
        """What an inbox of the class `retention_days` keeps out, newest first."""
        rows = await self._database.fetch(
            QUERIES.held, workspace_id, inbox_id, retention_days, before or _NEWEST, limit + 1
        )
        items = [_held(row) for row in rows[:limit]]
        return HeldPage(items, items[-1].id if len(rows) > limit else None)

    async def is_tagged(self, workspace_id: UUID, inbox_id: UUID, verdict: Verdict) -> bool:
        """Whether an inbox marks a message that stands so."""
        if verdict.standing is not Standing.FORGED:
            return False
        policy = await self._database.fetchval(QUERIES.policy_by_inbox, workspace_id, inbox_id)
        return policy is not None and OnForged(policy) is OnForged.TAG

    async def rows(
        self, workspace_id: UUID, message_ids: Sequence[UUID]
    ) -> Sequence[asyncpg.Record]:
        """Messages with their bytes, as ingest takes them; those that have ended are left out.
        Raises BlobsAway. Before a transaction: some bytes may lie in the blob store."""
        ids = list(message_ids)
        rows = await self._database.fetch(QUERIES.load, workspace_id, ids, min(ids), max(ids))
        return await self._raw_mail.filled(rows)

    async def let_go(
        self, workspace_id: UUID, places: Sequence[tuple[UUID, UUID]], tx: Connection
    ) -> set[tuple[UUID, UUID]]:
        """Keep messages out no longer, each an (inbox, message); those that were kept out."""
        inboxes, messages = [one for one, _ in places], [one for _, one in places]
        rows = await self._database.fetch(QUERIES.let_go, workspace_id, inboxes, messages, tx=tx)
        return {(row["inbox_id"], row["message_id"]) for row in rows}


def detail_of(verdict: Verdict) -> str:
    """As the table has it."""
    return msgspec.json.encode(verdict).decode()


def rows_of(
    verdicts: Mapping[UUID, Verdict], places: Mapping[UUID, tuple[int, UUID]]
) -> list[tuple[UUID, int, UUID, str, str]]:
    """(message, class, workspace, standing, detail) of each judged message in `places`."""
    distinct = {id(verdict): verdict for verdict in verdicts.values()}  # mails may share one
    details = {key: detail_of(verdict) for key, verdict in distinct.items()}
    return [
        (message_id, *places[message_id], str(verdict.standing), details[id(verdict)])
        for message_id, verdict in verdicts.items()
        if message_id in places
    ]


def _held(row: asyncpg.Record) -> HeldMessage:
    message_id, *shown = row
    state, recipient, *rest = shown
    return HeldMessage(message_id, state, recipient, time_of(message_id), *rest)
