"""Routes of receiving domains: which names lead where, and in which order.

    sales           an alias: mail to sales@… lies in an inbox of the workspace
    support-*       a pattern
    *               the catch-all, asked last

Mail of a route that forwards, or that a webhook is told of, is filed in an inbox of the route's own
first and kept there for KEPT_S: accepted mail is durable whatever becomes of the forwarding, and
what went on can be seen. A webhook endpoint asks for that inbox's events.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

import asyncpg

from mailyard.core import ids
from mailyard.core.errors import Conflict, InvalidInput, NotFound
from mailyard.protocol.address import domain_of, normalise
from mailyard.receiving.domain import ReceivingDomain
from mailyard.receiving.elsewhere import DROP, FORWARD, INBOX, REFUSE, WEBHOOK
from mailyard.receiving.pattern import checked
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

_SQL = load("receiving_domain")
ACTIONS = (INBOX, WEBHOOK, FORWARD, DROP, REFUSE)
ROUTES_PER_DOMAIN = 1_000
FORWARDS_PER_ROUTE = 10
KEPT_S = 7 * 86_400.0


@dataclass(frozen=True, slots=True)
class NewRoute:
    """What a caller asks for. `inbox`: an address of the workspace's own, for the action inbox;
    `forward_to`: addresses, for the action forward."""

    pattern: str
    action: str
    inbox: str = ""
    forward_to: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class InboundRoute:
    """A route. `address` is that of the inbox that its mail is filed in, empty where in none;
    `filed_in` that inbox, where the route has one of its own."""

    id: UUID
    workspace_id: UUID
    domain_id: UUID
    position: int
    pattern: str
    action: str
    address: str
    filed_in: UUID | None
    forward_to: tuple[str, ...]


class InboxMaker(Protocol):
    """Who makes and deletes a route's own inbox (wired in `app`)."""

    async def make(
        self, workspace_id: UUID, domain: str, name: str, message_ttl_s: float, tx: Connection
    ) -> tuple[UUID, str]:
        """A new inbox's id and address."""
        ...

    async def find(self, workspace_id: UUID, address: str) -> str:
        """The normalised address of a living inbox of the workspace. Raises NotFound."""
        ...

    async def delete(self, workspace_id: UUID, inbox_id: UUID, tx: Connection) -> None: ...


class InboundRoutes:
    """The routes of all workspaces. The caller writes the audit rows, and announces
    `elsewhere.TOPIC` after the commit.

    `refused`: domains that nothing is forwarded to, which is where we receive ourselves.
    """

    def __init__(
        self, *, database: Database, inboxes: InboxMaker, refused: Sequence[str] = ()
    ) -> None:
        self._database = database
        self._inboxes = inboxes
        self._refused = frozenset(refused)

    async def create(
        self, domain: ReceivingDomain, wanted: NewRoute, tx: Connection
    ) -> InboundRoute:
        """Add a route behind the domain's others. Raises InvalidInput, Conflict, NotFound."""
        workspace_id = domain.workspace_id
        pattern = checked(wanted.pattern)
        if wanted.action not in ACTIONS:
            raise InvalidInput(f"one of {', '.join(ACTIONS)}", field="action")
        forward_to = self._forwards(wanted, domain)
        if wanted.inbox and wanted.action != INBOX:
            raise InvalidInput("only the action inbox takes one", field="inbox")
        count = await self._database.fetchval(_SQL.count_routes, workspace_id, domain.id, tx=tx)
        if count >= ROUTES_PER_DOMAIN:
            raise Conflict(f"a domain has at most {ROUTES_PER_DOMAIN} routes")
        address, filed_in = "", None
        if wanted.action == INBOX:
            address = await self._inbox_of(workspace_id, wanted.inbox)
        elif wanted.action in (FORWARD, WEBHOOK):
            if domain.proved_at is None:
                raise Conflict(f"prove first that {domain.name} is your own: check the domain")
            name = f"{pattern}@{domain.name}: {wanted.action}"
            filed_in, address = await self._inboxes.make(
                workspace_id, domain.name, name, KEPT_S, tx
            )
        row = await self._database.fetchrow(
            _SQL.add_route,
            workspace_id,
            domain.id,
            ids.uuid7(),
            pattern,
            wanted.action,
            address,
            filed_in,
            list(forward_to),
            tx=tx,
        )
        if row is None:
            raise Conflict(f"{domain.name} has a route for {pattern} already", field="pattern")
        return _route(row)

    async def list(self, workspace_id: UUID, domain_id: UUID) -> list[InboundRoute]:
        """The routes of a domain, in their order."""
        rows = await self._database.fetch(_SQL.list_routes, workspace_id, domain_id)
        return [_route(row) for row in rows]

    async def get(self, workspace_id: UUID, route_id: UUID) -> InboundRoute:
        """One route. Raises NotFound."""
        return _existing(await self._database.fetchrow(_SQL.get_route, workspace_id, route_id))

    async def place(
        self, workspace_id: UUID, route_id: UUID, position: int, tx: Connection
    ) -> InboundRoute:
        """Let a route stand at `position`: lower ones are asked first. Raises NotFound."""
        if not 0 <= position <= 1_000_000:
            raise InvalidInput("0 to 1000000", field="position")
        row = await self._database.fetchrow(
            _SQL.place_route, workspace_id, route_id, position, tx=tx
        )
        return _existing(row)

    async def remove(self, workspace_id: UUID, route_id: UUID, tx: Connection) -> InboundRoute:
        """Take a route away, its own inbox too, and return it. Raises NotFound."""
        row = await self._database.fetchrow(_SQL.remove_route, workspace_id, route_id, tx=tx)
        gone = _existing(row)
        if gone.filed_in is not None:
            await self._inboxes.delete(workspace_id, gone.filed_in, tx)
        return gone

    async def remove_all(self, workspace_id: UUID, domain_id: UUID, tx: Connection) -> None:
        """Take all routes of a domain away, their own inboxes too."""
        for row in await self._database.fetch(_SQL.list_routes, workspace_id, domain_id, tx=tx):
            await self.remove(workspace_id, row["id"], tx)

    async def _inbox_of(self, workspace_id: UUID, text: str) -> str:
        if not text:
            raise InvalidInput("an inbox's address is needed", field="inbox")
        try:
            return await self._inboxes.find(workspace_id, text)
        except NotFound:
            raise InvalidInput(f"there is no inbox {text[:80]}", field="inbox") from None
        except InvalidInput as error:
            raise InvalidInput(error.message, field="inbox") from None

    def _forwards(self, wanted: NewRoute, domain: ReceivingDomain) -> tuple[str, ...]:
        if wanted.action != FORWARD:
            if wanted.forward_to:
                raise InvalidInput("only the action forward takes them", field="forward_to")
            return ()
        if not 1 <= len(wanted.forward_to) <= FORWARDS_PER_ROUTE:
            raise InvalidInput(f"1 to {FORWARDS_PER_ROUTE} addresses", field="forward_to")
        found = []
        for place, text in enumerate(wanted.forward_to):
            try:
                address = normalise(text.strip())
            except InvalidInput as error:
                raise InvalidInput(error.message, field=f"forward_to.{place}") from None
            if domain_of(address) in {domain.name, *self._refused}:
                raise InvalidInput(
                    "that is received here: lead it to an inbox", field=f"forward_to.{place}"
                )
            found.append(address)
        return tuple(dict.fromkeys(found))


def _existing(row: asyncpg.Record | None) -> InboundRoute:
    if row is None:
        raise NotFound("no such route")
    return _route(row)


def _route(row: asyncpg.Record) -> InboundRoute:
    return InboundRoute(**{**row, "forward_to": tuple(row["forward_to"])})
