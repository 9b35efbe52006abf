"""Names of a workspace that its links go by: `click.example.org`, a CNAME to this installation.

A name belongs to whoever owns the domain above it: it is used once it is a CNAME to us and one of
the workspace's sending domains, with its DKIM records seen in DNS, is the same or stands above it.
So nobody gets a name of somebody else by being first. TLS for it is the operator's, in front of
Mailyard (docs/decisions/0021-tracking.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

import asyncpg

from mailyard.core import ids
from mailyard.core.clock import Clock, SystemClock
from mailyard.core.errors import Conflict, InvalidInput, NotFound
from mailyard.protocol.address import ascii_domain
from mailyard.protocol.dkim.tags import domain_value
from mailyard.protocol.dns_answer import Answer, Result, TemporaryFailure
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

_SQL = load("tracking")
_LAST_ID = UUID(int=(1 << 128) - 1)
REMEMBERED_S = 10.0


@dataclass(frozen=True, slots=True)
class TrackingDomain:
    """A name for tracking links. `finding` says what is wrong with it in DNS."""

    id: UUID
    workspace_id: UUID
    name: str
    verified: bool
    finding: str
    looked_at: datetime | None

    @property
    def created_at(self) -> datetime:
        return ids.time_of(self.id)


class CnameLookup(Protocol):
    """What a look at DNS needs (`net.dns.Resolver` fits)."""

    async def cname(self, name: str) -> Result[str]: ...


class TrackingDomains:
    """The tracking names of all workspaces. The caller writes the audit rows.

    `target` is the host that a name's CNAME has to point to.
    """

    def __init__(self, *, database: Database, target: str, clock: Clock | None = None) -> None:
        self._database = database
        self.target = target
        self._clock = clock or SystemClock()

    async def create(
        self, workspace_id: UUID, name: str, tx: Connection | None = None
    ) -> TrackingDomain:
        """Add a name, not in use until it is checked. Raises InvalidInput, Conflict."""
        checked = _checked(name, self.target)
        row = await self._database.fetchrow(
            _SQL.add_tracking_domain, workspace_id, ids.uuid7(), checked, tx=tx
        )
        if row is None:
            raise Conflict(f"{checked} is a tracking domain already", field="name")
        return _domain(row)

    async def get(
        self, workspace_id: UUID, domain_id: UUID, tx: Connection | None = None
    ) -> TrackingDomain:
        """One name. Raises NotFound."""
        row = await self._database.fetchrow(
            _SQL.get_tracking_domain, workspace_id, domain_id, tx=tx
        )
        if row is None:
            raise NotFound("no such tracking domain")
        return _domain(row)

    async def page(
        self, workspace_id: UUID, *, before: UUID | None = None, limit: int = 100
    ) -> Sequence[TrackingDomain]:
        """Names, newest first, with ids below `before`."""
        rows = await self._database.fetch(
            _SQL.page_tracking_domains, workspace_id, before or _LAST_ID, limit
        )
        return [_domain(row) for row in rows]

    async def remove(self, workspace_id: UUID, domain_id: UUID, tx: Connection) -> TrackingDomain:
        """Take a name away and return it; links that were sent with it lead nowhere any more.

        Raises NotFound.
        """
        row = await self._database.fetchrow(
            _SQL.remove_tracking_domain, workspace_id, domain_id, tx=tx
        )
        if row is None:
            raise NotFound("no such tracking domain")
        return _domain(row)

    async def look(self, domain: TrackingDomain, records: CnameLookup) -> str:
        """What is wrong with the name's CNAME in DNS; empty when nothing is."""
        return _finding(domain.name, self.target, await records.cname(domain.name))

    async def note(
        self, workspace_id: UUID, domain_id: UUID, finding: str, tx: Connection
    ) -> TrackingDomain:
        """Keep what `look` found: a name without a finding is in use, one with it no longer, unless
        DNS could not say. Raises NotFound."""
        domain = await self.get(workspace_id, domain_id, tx)
        unknown = finding.startswith(_UNKNOWN)
        if not finding and not await self._database.fetchval(
            _SQL.owns_name, workspace_id, _above(domain.name), tx=tx
        ):
            finding = (
                f"add the domain that {domain.name} stands under as a sending domain first, and "
                "publish its DKIM records: they show that it is yours"
            )
        verified = domain.verified if unknown else not finding
        row = None
        if not verified or not await self._database.fetchval(
            _SQL.taken_name, workspace_id, domain.name, tx=tx
        ):
            row = await self._database.fetchrow(
                _SQL.note_tracking_domain,
                workspace_id,
                domain_id,
                verified,
                finding,
                self._clock.now(),
                tx=tx,
            )
        if row is None:
            raise Conflict(f"{domain.name} is in use by another workspace", field="name")
        return _domain(row)


_UNKNOWN = "DNS cannot say now"


def _finding(name: str, target: str, result: Result[str]) -> str:
    if isinstance(result, TemporaryFailure):
        return f"{_UNKNOWN} what {name} is ({result.trouble.value}); look again later"
    if not isinstance(result, Answer):
        return f"there is no CNAME record at {name}: add one that points to {target}"
    pointed = [record.rstrip(".").lower() for record in result.records]
    if target in pointed:
        return ""
    return f"{name} is a CNAME to {', '.join(pointed)[:200]}: it has to point to {target}"


def _above(name: str) -> list[str]:
    """`name` and the domains above it."""
    labels = name.split(".")
    return [".".join(labels[at:]) for at in range(len(labels) - 1)]


def _checked(name: str, target: str) -> str:
    try:
        checked = domain_value(ascii_domain(name.strip().removesuffix(".")), "name", labels=3)
    except InvalidInput:
        raise InvalidInput(
            f"{name[:80]!r} is no name below a domain, like click.example.org; a domain itself "
            "cannot be a CNAME",
            field="name",
        ) from None
    if checked == target:
        raise InvalidInput("this is the name of the installation itself", field="name")
    return checked


def _domain(row: asyncpg.Record) -> TrackingDomain:
    return TrackingDomain(**row)


class TrackingNames:
    """The names in use, as they were at most REMEMBERED_S ago. One for a process.

    `default` is the address of the installation, for workspaces that have no name of their own.
    """

    def __init__(self, *, database: Database, default: str, clock: Clock | None = None) -> None:
        self._database = database
        self._default = default
        self._clock = clock or SystemClock()
        self._until = -1.0
        self._of_workspace: dict[UUID, list[str]] = {}
        self.owners: dict[str, UUID] = {}

    @property
    def due(self) -> bool:
        """Whether it is time to look again."""
        return self._clock.monotonic() >= self._until

    async def refresh(self, tx: Connection | None = None) -> None:
        """Look again when it is time to."""
        now = self._clock.monotonic()
        if now < self._until:
            return
        self._until = now + REMEMBERED_S  # whoever comes meanwhile goes by what is known
        try:
            rows = await self._database.fetch(_SQL.names_in_use, tx=tx)
        except BaseException:
            self._until = now
            raise
        of_workspace: dict[UUID, list[str]] = {}
        for row in rows:
            of_workspace.setdefault(row["workspace_id"], []).append(row["name"])
        self._of_workspace = of_workspace
        self.owners = {row["name"]: row["workspace_id"] for row in rows}

    async def base_for(self, workspace_id: UUID, sender: str, tx: Connection | None = None) -> str:
        """Where the links of mail from the domain `sender` lead, without a slash at the end: the
        workspace's name that has most of its end, else the newest, else the installation."""
        await self.refresh(tx)
        names = self._of_workspace.get(workspace_id)
        if not names:
            return self._default
        return f"https://{max(names, key=lambda name: _common_labels(name, sender))}"


def _common_labels(name: str, other: str) -> int:
    count = 0
    for mine, theirs in zip(reversed(name.split(".")), reversed(other.split(".")), strict=False):
        if mine != theirs:
            break
        count += 1
    return count
