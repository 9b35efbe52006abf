"""Addresses that our links lead to. What is not stored, nobody is led to."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from typing import NamedTuple
from uuid import UUID

from mailyard.core import limits
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

_SQL = load("tracking")
_STORED_REMEMBERED = 20_000
_ZERO = UUID(int=0)


class StoredLink(NamedTuple):
    """An address. With a `source` it is one of those that a pattern came to; a pattern is what
    stands in the template, variables and all, and leads nowhere."""

    id: UUID
    url: str
    source: UUID | None = None
    pattern: bool = False


class Target(NamedTuple):
    """Where a link leads, and whose it is."""

    workspace_id: UUID
    url: str


@dataclass(frozen=True, slots=True)
class LinkCount:
    """A link of a campaign, and how often it was followed."""

    id: UUID
    url: str
    pattern: bool
    clicks: int
    machine_clicks: int
    created_at: datetime


def link_id(workspace_id: UUID, campaign_id: UUID | None, url: str) -> UUID:
    """The one id of an address in a campaign."""
    said = workspace_id.bytes + (campaign_id or _ZERO).bytes + url.encode()
    return UUID(bytes=blake2b(said, digest_size=16).digest())


class Links:
    """Stores addresses and finds them. One for a process."""

    def __init__(self, *, database: Database) -> None:
        self._database = database
        self._stored: OrderedDict[UUID, None] = OrderedDict()

    async def store(
        self,
        workspace_id: UUID,
        campaign_id: UUID | None,
        links: Sequence[StoredLink],
        tx: Connection | None = None,
    ) -> None:
        """Durable on return, or with `tx`. What this process has stored before costs nothing."""
        new = [link for link in links if link.id not in self._stored]
        if not new:
            return
        new.sort(key=lambda link: link.id)  # so that two who store the same do not block each other
        await self._database.execute(
            _SQL.store_links,
            workspace_id,
            campaign_id,
            [link.id for link in new],
            [link.source for link in new],
            [link.url for link in new],
            [link.pattern for link in new],
            tx=tx,
        )
        if tx is None:
            self._stored.update((link.id, None) for link in new)
            while len(self._stored) > _STORED_REMEMBERED:
                self._stored.popitem(last=False)

    async def find(self, link: bytes) -> Target | None:
        """Where the link with these 16 bytes leads; None when it is not stored."""
        row = await self._database.fetchrow(_SQL.find_link, UUID(bytes=link))
        return None if row is None else Target(row["workspace_id"], row["url"])

    async def of_campaign(
        self,
        workspace_id: UUID,
        campaign_id: UUID,
        *,
        after: UUID | None = None,
        limit: int = limits.API_PAGE_ITEMS,
    ) -> list[LinkCount]:
        """A page of the links that a campaign's template has, in the order of their ids."""
        rows = await self._database.fetch(
            _SQL.page_links, workspace_id, campaign_id, after or _ZERO, limit
        )
        return [LinkCount(**row) for row in rows]
