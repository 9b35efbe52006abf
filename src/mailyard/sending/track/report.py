"""Reading what was seen: of one delivery, of a campaign, of its links."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from mailyard.core import ids, limits
from mailyard.sending.track.link import LinkCount, Links
from mailyard.storage.database import Database
from mailyard.storage.queries import load

_SQL = load("tracking")
EVENTS_SHOWN = 200  # of one delivery
_NAMES = (
    "opens", "opened", "clicks", "clicked", "machine_opens", "machine_clicks", "unsubscribed",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SeenEvent:
    """An open, a click or an unsubscribe. `machine`: the rule by which no person did it."""

    id: UUID
    kind: str
    machine: str
    user_agent: str
    network: str
    url: str | None

    @property
    def at(self) -> datetime:
        return ids.time_of(self.id)


@dataclass(frozen=True, slots=True)
class Totals:
    """What came of a campaign. `opened`, `clicked`, `unsubscribed` are recipients, each once; the
    others are events, a person's and machines' apart."""

    opens: int
    opened: int
    clicks: int
    clicked: int
    machine_opens: int
    machine_clicks: int
    unsubscribed: int


class TrackingReport:
    """Reads events and counters of a workspace."""

    def __init__(self, *, database: Database, links: Links) -> None:
        self._database = database
        self._links = links

    async def of_delivery(self, workspace_id: UUID, delivery_id: UUID) -> list[SeenEvent]:
        """What was seen of a delivery, in order; the first EVENTS_SHOWN."""
        rows = await self._database.fetch(
            _SQL.events_of_delivery, workspace_id, delivery_id, EVENTS_SHOWN
        )
        return [SeenEvent(**row) for row in rows]

    async def totals(self, workspace_id: UUID, subject: UUID) -> Totals:
        """The totals of a campaign, or with the workspace's own id those of the workspace."""
        rows = await self._database.fetch(
            _SQL.read_totals, workspace_id, subject, [f"track.{name}" for name in _NAMES]
        )
        found = {row["name"].removeprefix("track."): row["amount"] for row in rows}
        return Totals(**{name: found.get(name, 0) for name in _NAMES})

    async def links(
        self,
        workspace_id: UUID,
        campaign_id: UUID,
        *,
        after: UUID | None = None,
        limit: int = limits.API_PAGE_ITEMS,
    ) -> Sequence[LinkCount]:
        """A page of a campaign's links with how often they were followed."""
        return await self._links.of_campaign(workspace_id, campaign_id, after=after, limit=limit)
