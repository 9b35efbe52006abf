"""Segments: filters over contacts that have a name, which campaigns are sent to."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from mailyard.campaigns.audience import Audience, Audiences
from mailyard.core.errors import Conflict, InvalidInput, NotFound
from mailyard.core.ids import uuid7
from mailyard.core.limits import API_PAGE_ITEMS
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

_SQL = load("segment")

NAME_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Segment:
    """`filter`: as it was typed."""

    id: UUID
    name: str
    filter: str
    created_at: datetime
    updated_at: datetime


class Segments:
    """Create, find, change and remove segments. The caller writes the audit row."""

    def __init__(self, *, database: Database, audiences: Audiences) -> None:
        self._database = database
        self.audiences = audiences

    async def create(
        self, workspace_id: UUID, name: str, source: str, *, tx: Connection | None = None
    ) -> Segment:
        """Add a segment. Raises InvalidInput, FilterError, or Conflict when the name is taken."""
        name = _checked(name)
        await self.audiences.read(workspace_id, source, tx)
        row = await self._database.fetchrow(
            _SQL.insert_segment, workspace_id, uuid7(), name, source, tx=tx
        )
        if row is None:
            raise Conflict("a segment with this name is there already", field="name")
        return Segment(**row)

    async def get(
        self, workspace_id: UUID, segment_id: UUID, *, tx: Connection | None = None
    ) -> Segment:
        """One segment. Raises NotFound."""
        row = await self._database.fetchrow(_SQL.get_segment, workspace_id, segment_id, tx=tx)
        if row is None:
            raise NotFound("there is no such segment")
        return Segment(**row)

    async def page(
        self, workspace_id: UUID, *, after: UUID | None = None, limit: int = API_PAGE_ITEMS
    ) -> list[Segment]:
        """A page of segments, the newest first, behind segment `after`."""
        rows = await self._database.fetch(_SQL.page_segments, workspace_id, after, limit)
        return [Segment(**row) for row in rows]

    async def update(
        self,
        workspace_id: UUID,
        segment_id: UUID,
        *,
        name: str | None = None,
        source: str | None = None,
        tx: Connection | None = None,
    ) -> Segment:
        """Change what is given. Campaigns that have started keep the filter that they began with.

        Raises NotFound, InvalidInput, FilterError, or Conflict when the name is taken.
        """
        if name is not None:
            name = _checked(name)
            other = await self._database.fetchval(
                _SQL.find_segment_by_name, workspace_id, name, tx=tx
            )
            if other is not None and other != segment_id:
                raise Conflict("a segment with this name is there already", field="name")
        if source is not None:
            await self.audiences.read(workspace_id, source, tx)
        try:
            row = await self._database.fetchrow(
                _SQL.update_segment, workspace_id, segment_id, name, source, tx=tx
            )
        except asyncpg.UniqueViolationError as error:  # another one was just named so
            raise Conflict("a segment with this name is there already", field="name") from error
        if row is None:
            raise NotFound("there is no such segment")
        return Segment(**row)

    async def delete(
        self, workspace_id: UUID, segment_id: UUID, *, tx: Connection | None = None
    ) -> None:
        """Remove a segment; its contacts stay. Raises NotFound."""
        if not await self._database.fetch(_SQL.delete_segment, workspace_id, segment_id, tx=tx):
            raise NotFound("there is no such segment")

    async def audience(
        self, workspace_id: UUID, segment_id: UUID, *, tx: Connection | None = None
    ) -> Audience:
        """Whom a segment means now. Raises NotFound, and FilterError when a list is gone."""
        segment = await self.get(workspace_id, segment_id, tx=tx)
        return await self.audiences.read(workspace_id, segment.filter, tx)


def _checked(name: str) -> str:
    stripped = name.strip()
    if not 1 <= len(stripped) <= NAME_CHARACTERS or "\0" in stripped:
        raise InvalidInput(f"a segment's name has 1 to {NAME_CHARACTERS} characters", field="name")
    return stripped
