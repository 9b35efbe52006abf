"""The suppression list: whom a workspace does not write to.

Stream `all` stops every mail to an address, `campaign` only campaigns (an unsubscribe). The caller
writes the audit row.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
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
REASON_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class Suppression:
    """One address that gets no mail of `stream`."""

    id: UUID
    workspace_id: UUID
    address: str
    stream: str
    reason: str

    @property
    def created_at(self) -> datetime:
        return ids.time_of(self.id)


class Suppressions:
    """Reads and changes the list of a workspace."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def add(
        self,
        workspace_id: UUID,
        address: str,
        stream: str = ALL,
        reason: str = "by hand",
        tx: Connection | None = None,
    ) -> Suppression:
        """Add one address. Raises InvalidInput, or Conflict when it stands already."""
        added = await self.add_many(workspace_id, [address], stream, reason, tx)
        if not added:
            raise Conflict(f"{normalise(address)} is suppressed already", field="address")
        return added[0]

    async def add_many(
        self,
        workspace_id: UUID,
        addresses: Iterable[str],
        stream: str = ALL,
        reason: str = "by hand",
        tx: Connection | None = None,
    ) -> list[Suppression]:
        """Add addresses; returns those that were not there."""
        if stream not in (ALL, CAMPAIGN):
            raise InvalidInput(f"stream is {ALL} or {CAMPAIGN}", field="stream")
        if len(reason) > REASON_CHARACTERS or "\0" in reason:
            raise InvalidInput(
                f"a reason has at most {REASON_CHARACTERS} characters", field="reason"
            )
        wanted = sorted({normalise(address) for address in addresses})
        rows = await self._database.fetch(
            _SQL.add_suppressions,
            workspace_id,
            [ids.uuid7() for _ in wanted],
            wanted,
            stream,
            reason,
            tx=tx,
        )
        return [Suppression(*row) for row in rows]

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

    async def page(
        self,
        workspace_id: UUID,
        *,
        address: str | None = None,
        before: UUID | None = None,
        limit: int = 100,
    ) -> Sequence[Suppression]:
        """Entries, newest first, with ids below `before`."""
        wanted = normalise(address) if address is not None else None
        rows = await self._database.fetch(
            _SQL.list_suppressions, workspace_id, before or _LAST_ID, wanted, limit
        )
        return [Suppression(*row) for row in rows]

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
