"""Stored routes: which providers may have which mail, a workspace's own and the installation's.

A workspace without routes of its own sends by the shared ones, and where there are none either, by
the relay of the settings. Routes are read, checked and replaced as a whole, for what one of them
gets depends on those above it.
"""

from collections.abc import Iterable, Mapping, Sequence
from uuid import UUID

import asyncpg
import msgspec
from msgspec import Struct

from mailyard.core.errors import InvalidInput
from mailyard.sending.provider import RELAY
from mailyard.sending.route.routes import Leg, Route, Routes, When
from mailyard.sending.transport import CAMPAIGN, TRANSACTIONAL
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

_SQL = load("provider")

NAME_CHARACTERS = 100
ENTRIES_MAX = 1_000  # of one condition
ENTRY_CHARACTERS = 255
STREAMS = (TRANSACTIONAL, CAMPAIGN)


class Conditions(Struct, frozen=True, forbid_unknown_fields=True):
    """Which mails: one that is empty fits all, of a list one entry has to fit."""

    tags: list[str] = []
    domains: list[str] = []
    streams: list[str] = []
    workspaces: list[UUID] = []


class StoredLeg(Struct, frozen=True, forbid_unknown_fields=True):
    """A provider on a route; see `route.routes.Leg`."""

    provider: str
    weight: int = 1
    order: int = 0


class StoredRoute(Struct, frozen=True, forbid_unknown_fields=True):
    """A route as it is stored and shown."""

    name: str
    legs: list[StoredLeg]
    when: Conditions = Conditions()


class Routing:
    """The routes of all workspaces. The caller writes the audit rows, and has the book of providers
    say `changed` after its commit."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def get(
        self, workspace_id: UUID, *, shared: bool = False, tx: Connection | None = None
    ) -> list[StoredRoute]:
        """The workspace's routes from the top, or (`shared`) those that it has made for all."""
        rows = await self._database.fetch(_SQL.list_routes, workspace_id, shared, tx=tx)
        return [stored_route(row) for row in rows]

    async def in_force(
        self, workspace_id: UUID, tx: Connection | None = None
    ) -> tuple[list[StoredRoute], str]:
        """What the workspace's mail goes by, and whose that is: own, shared, or nobody's."""
        if own := await self.get(workspace_id, tx=tx):
            return own, "own"
        rows = await self._database.fetch(_SQL.list_shared_routes, tx=tx)
        return [stored_route(row) for row in rows], "shared" if rows else ""

    async def replace(
        self, workspace_id: UUID, routes: Sequence[StoredRoute], *, shared: bool, tx: Connection
    ) -> list[StoredRoute]:
        """Put `routes` in the place of what was there; none takes all away. Raises InvalidInput
        that names the entry."""
        await self._database.execute(_SQL.hold_names, tx=tx)
        if routes:
            for at, route in enumerate(routes):
                _check(f"routes[{at}]", route, shared)
            rows = await self._database.fetch(_SQL.names_in_use, workspace_id, shared, tx=tx)
            compiled(routes, {row["name"]: row["name"] for row in rows})
        await self._database.execute(_SQL.drop_routes, workspace_id, shared, tx=tx)
        await self._database.execute(
            _SQL.add_routes,
            workspace_id,
            shared,
            [route.name for route in routes],
            [msgspec.json.encode(route.when).decode() for route in routes],
            [msgspec.json.encode(route.legs).decode() for route in routes],
            tx=tx,
        )
        return list(routes)


def stored_route(row: asyncpg.Record) -> StoredRoute:
    """A row of `route`."""
    return StoredRoute(
        row["name"],
        msgspec.json.decode(row["legs"], type=list[StoredLeg]),
        msgspec.json.decode(row["conditions"], type=Conditions),
    )


def compiled(routes: Iterable[StoredRoute], keys: Mapping[str, str]) -> Routes:
    """Routes to choose by. `keys`: how each provider that may stand on one is called there; the
    relay may always. Raises InvalidInput naming the entry."""
    keys = {**keys, RELAY: RELAY}
    return Routes((_compiled(route, keys) for route in routes), keys.values())


def _compiled(route: StoredRoute, keys: Mapping[str, str]) -> Route:
    when = route.when
    legs = (Leg(keys.get(leg.provider, leg.provider), leg.weight, leg.order) for leg in route.legs)
    return Route(
        route.name,
        tuple(legs),
        When(
            workspaces=frozenset(when.workspaces),
            tags=frozenset(when.tags),
            domains=frozenset(when.domains),
            streams=frozenset(when.streams),
        ),
    )


def _check(at: str, route: StoredRoute, shared: bool) -> None:
    if not 0 < len(route.name) <= NAME_CHARACTERS or not route.name.isprintable():
        raise InvalidInput(
            f"a route's name has 1 to {NAME_CHARACTERS} printable characters", field=f"{at}.name"
        )
    for what in ("tags", "domains", "streams", "workspaces"):
        entries: list[object] = getattr(route.when, what)
        if len(entries) > ENTRIES_MAX:
            raise InvalidInput(f"at most {ENTRIES_MAX} entries", field=f"{at}.when.{what}")
        if any(isinstance(one, str) and not _is_entry(one) for one in entries):
            raise InvalidInput(
                f"an entry has 1 to {ENTRY_CHARACTERS} printable characters",
                field=f"{at}.when.{what}",
            )
    if not set(route.when.streams) <= set(STREAMS):
        raise InvalidInput(f"a stream is one of {', '.join(STREAMS)}", field=f"{at}.when.streams")
    if route.when.workspaces and not shared:
        raise InvalidInput(
            "these are one workspace's routes already; the operator's shared ones may ask for it",
            field=f"{at}.when.workspaces",
        )


def _is_entry(text: str) -> bool:
    return 0 < len(text) <= ENTRY_CHARACTERS and text.isprintable()
