"""How providers fare, as the workers have told: for the API and the pages.

A provider stands as the worst of the workers says. Of a shared one another workspace sees where it
stands and nothing else: why a mail was refused is told in words that are about somebody's mail.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import asyncpg

from mailyard.core import ids
from mailyard.sending.provider import Provider
from mailyard.sending.route.breaker import Position
from mailyard.storage.database import Database
from mailyard.storage.queries import load

_SQL = load("provider")
_LAST_ID = UUID(int=(1 << 128) - 1)
_WORST_FIRST = (Position.OPEN, Position.HALF_OPEN, Position.CLOSED)
EVENTS = 50


@dataclass(frozen=True, slots=True)
class ProviderHealth:
    """`position` of the breaker, empty when no worker has used the provider lately. Counts are
    recipients since the workers began. `until_at`: when an open one is tried again."""

    position: str = ""
    why: str = ""
    until_at: datetime | None = None
    workers: int = 0
    workers_open: int = 0
    accepted: int = 0
    later: int = 0
    refused: int = 0
    unknown: int = 0
    passed_on: int = 0


@dataclass(frozen=True, slots=True)
class BreakerChange:
    """What a breaker did in some worker."""

    at: datetime
    position: str
    why: str
    until_at: datetime | None


@dataclass(slots=True)
class _Rows:
    rows: list[asyncpg.Record] = field(default_factory=list)

    def health(self, *, whole: bool) -> ProviderHealth:
        """All workers together."""
        if not self.rows:
            return ProviderHealth()
        worst = min(self.rows, key=lambda row: _WORST_FIRST.index(Position(row["position"])))
        opened = [row for row in self.rows if row["position"] == Position.OPEN]
        until_at = min((row["until_at"] for row in opened if row["until_at"]), default=None)
        if not whole:
            return ProviderHealth(position=worst["position"], until_at=until_at)
        return ProviderHealth(
            position=worst["position"],
            why="" if worst["position"] == Position.CLOSED else worst["why"],
            until_at=until_at,
            workers=len(self.rows),
            workers_open=len(opened),
            **{
                name: sum(row[name] for row in self.rows)
                for name in ("accepted", "later", "refused", "unknown", "passed_on")
            },
        )


class ProviderWatch:
    """Reads what the workers have told."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def health(
        self, workspace_id: UUID, providers: Sequence[Provider]
    ) -> dict[UUID, ProviderHealth]:
        """How `providers`, which the workspace may use, fare."""
        rows = await self._database.fetch(_SQL.read_health, [one.id for one in providers])
        by_provider = {one.id: _Rows() for one in providers}
        for row in rows:
            by_provider[row["provider_id"]].rows.append(row)
        return {
            one.id: by_provider[one.id].health(whole=one.workspace_id == workspace_id)
            for one in providers
        }

    async def events(self, workspace_id: UUID, provider: Provider) -> list[BreakerChange]:
        """What the breaker of the workspace's own provider did lately, newest first."""
        if provider.workspace_id != workspace_id:
            return []
        rows = await self._database.fetch(_SQL.read_events, provider.id, _LAST_ID, EVENTS)
        return [
            BreakerChange(ids.time_of(row["id"]), row["position"], row["why"], row["until_at"])
            for row in rows
        ]
