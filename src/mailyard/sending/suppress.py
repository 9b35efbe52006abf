"""The suppression list: whom a workspace does not write to, and why.

Stream `all` stops every mail to an address, `campaign` only campaigns (an unsubscribe). It is asked
when mail is accepted and again before it is handed over. An address stands once in each stream:
what put it there first stays. The caller writes the audit row.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from mailyard.core import ids
from mailyard.core.errors import Conflict, InvalidInput, NotFound
from mailyard.protocol.address import normalise
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

_SQL = load("suppression")
_LAST_ID = UUID(int=(1 << 128) - 1)

ALL = "all"
CAMPAIGN = "campaign"
STREAMS = (ALL, CAMPAIGN)
ASK_AGAIN_S = 2.0
"""Whoever hands mail over asks again when the answer that he has is older than that."""
EVIDENCE_CHARACTERS = 500
SOURCE_CHARACTERS = 100
EXPORT_PAGE = 2_000


class Reason(StrEnum):
    """Why an address gets no mail."""

    HARD_BOUNCE = "hard_bounce"
    COMPLAINT = "complaint"
    UNSUBSCRIBED = "unsubscribed"
    BY_HAND = "by_hand"


REASONS = tuple(reason.value for reason in Reason)


@dataclass(frozen=True, slots=True)
class Suppression:
    """One address that gets no mail of `stream`.

    `source` is who said so (`mail`, a provider, the API, a file), `evidence` what was said,
    `delivery_id` the mail that it was said of.
    """

    id: UUID
    workspace_id: UUID
    address: str
    stream: str
    reason: str
    source: str
    evidence: str
    delivery_id: UUID | None

    @property
    def created_at(self) -> datetime:
        return ids.time_of(self.id)


@dataclass(frozen=True, slots=True)
class Stop:
    """An address to be added, normalised, as a consequence of something that happened."""

    workspace_id: UUID
    address: str
    stream: str
    reason: Reason
    source: str = ""
    evidence: str = ""
    delivery_id: UUID | None = None


class Suppressions:
    """Reads and changes the list of a workspace."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def add(
        self,
        workspace_id: UUID,
        address: str,
        stream: str = ALL,
        reason: str = Reason.BY_HAND,
        tx: Connection | None = None,
        *,
        source: str = "",
        evidence: str = "",
    ) -> Suppression:
        """Add one address. Raises InvalidInput, or Conflict when it stands already."""
        added = await self.add_many(
            workspace_id, [address], stream, reason, tx, source=source, evidence=evidence
        )
        if not added:
            raise Conflict(f"{normalise(address)} is suppressed already", field="address")
        return added[0]

    async def add_many(
        self,
        workspace_id: UUID,
        addresses: Iterable[str],
        stream: str = ALL,
        reason: str = Reason.BY_HAND,
        tx: Connection | None = None,
        *,
        source: str = "",
        evidence: str = "",
    ) -> list[Suppression]:
        """Add addresses; returns those that were not there. Raises InvalidInput."""
        check_stream(stream)
        check_reason(reason)
        if len(evidence) > EVIDENCE_CHARACTERS or "\0" in evidence:
            raise InvalidInput(
                f"evidence has at most {EVIDENCE_CHARACTERS} characters", field="evidence"
            )
        wanted = sorted({normalise(address) for address in addresses})
        rows = await self._database.fetch(
            _SQL.add_suppressions,
            workspace_id,
            [ids.uuid7() for _ in wanted],
            wanted,
            stream,
            reason,
            source[:SOURCE_CHARACTERS],
            evidence,
            tx=tx,
        )
        return [Suppression(*row) for row in rows]

    async def stop(self, stops: Sequence[Stop], tx: Connection) -> int:
        """Add what follows from bounces, complaints and the like; how many were not there."""
        if not stops:
            return 0
        ordered = sorted(stops, key=lambda one: (one.workspace_id, one.address, one.stream))
        return int(
            await self._database.fetchval(
                _SQL.stop_addresses,
                [ids.uuid7() for _ in ordered],
                [one.workspace_id for one in ordered],
                [one.address for one in ordered],
                [one.stream for one in ordered],
                [one.reason.value for one in ordered],
                [one.source[:SOURCE_CHARACTERS] for one in ordered],
                [_clean(one.evidence) for one in ordered],
                [one.delivery_id for one in ordered],
                tx=tx,
            )
        )

    async def get(self, workspace_id: UUID, suppression_id: UUID) -> Suppression:
        """One entry. Raises NotFound."""
        row = await self._database.fetchrow(_SQL.get_suppression, workspace_id, suppression_id)
        if row is None:
            raise NotFound("no such suppression")
        return Suppression(*row)

    async def remove(
        self, workspace_id: UUID, suppression_id: UUID, tx: Connection | None = None
    ) -> Suppression:
        """Take an entry off the list and return it. Raises NotFound."""
        row = await self._database.fetchrow(
            _SQL.remove_suppression, workspace_id, suppression_id, tx=tx
        )
        if row is None:
            raise NotFound("no such suppression")
        return Suppression(*row)

    async def lift_bounced(
        self, workspace_id: UUID, addresses: Sequence[str], tx: Connection
    ) -> None:
        """The normalised `addresses` are somebody's now: that they bounced counts no more."""
        await self._database.execute(_SQL.lift_bounced, workspace_id, addresses, tx=tx)

    async def page(
        self,
        workspace_id: UUID,
        *,
        address: str | None = None,
        stream: str | None = None,
        reason: str | None = None,
        before: UUID | None = None,
        limit: int = 100,
    ) -> Sequence[Suppression]:
        """Entries, newest first, with ids below `before`. Raises InvalidInput."""
        wanted = normalise(address) if address is not None else None
        if stream is not None:
            check_stream(stream)
        if reason is not None:
            check_reason(reason)
        rows = await self._database.fetch(
            _SQL.list_suppressions,
            workspace_id,
            before or _LAST_ID,
            wanted,
            limit,
            stream,
            reason,
        )
        return [Suppression(*row) for row in rows]

    async def every(self, workspace_id: UUID) -> AsyncIterator[Sequence[Suppression]]:
        """All entries, newest first, in pages: no page holds the list in memory."""
        before: UUID | None = None
        while page := await self.page(workspace_id, before=before, limit=EXPORT_PAGE):
            yield page
            before = page[-1].id

    async def check_many(
        self,
        asked: Iterable[tuple[UUID, str]],
        stream: str = ALL,
        tx: Connection | None = None,
    ) -> set[tuple[UUID, str]]:
        """Which of (workspace, normalised address) may not get mail of `stream`."""
        pairs = list(dict.fromkeys(asked))
        if not pairs:
            return set()
        rows = await self._database.fetch(
            _SQL.check_suppressions,
            [workspace_id for workspace_id, _ in pairs],
            [address for _, address in pairs],
            stream,
            tx=tx,
        )
        return {(row[0], row[1]) for row in rows}


def check_stream(stream: str) -> None:
    """Raises InvalidInput for what is no stream."""
    if stream not in STREAMS:
        raise InvalidInput(f"stream is one of {', '.join(STREAMS)}", field="stream")


def check_reason(reason: str) -> None:
    """Raises InvalidInput for what is no reason."""
    if reason not in REASONS:
        raise InvalidInput(f"reason is one of {', '.join(REASONS)}", field="reason")


def _clean(text: str) -> str:
    return text[:EVIDENCE_CHARACTERS].replace("\0", "\N{REPLACEMENT CHARACTER}")
