"""Keeping the way out up to date: what is stored comes in, what was found out goes to the others.

The plan is read anew when providers or routes have changed (the bus says so, and a look now and
then finds what the bus has lost). How the providers fare is written every second in which it
changed, for the pages and for other workers: one worker's outage is everybody's news.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import structlog

from mailyard.access.vault import Vault
from mailyard.bus.bus import Bus
from mailyard.core import ids
from mailyard.core.errors import MailyardError, Unavailable
from mailyard.sending.outbound import Outbound
from mailyard.sending.provider import RELAY, TOPIC, open_provider
from mailyard.sending.route.breaker import Position
from mailyard.sending.route.plan import Listed, Plan, View
from mailyard.sending.route.providers import ProviderEvent
from mailyard.sending.routing import StoredRoute, compiled, stored_route
from mailyard.sending.transport import Transport
from mailyard.sending.transports.kinds import KINDS, Opened, Workshop, make
from mailyard.sending.ways import Standing
from mailyard.storage.database import Database
from mailyard.storage.queries import load

_SQL = load("provider")
_LOG = structlog.get_logger(__name__)

TICK_S = 1.0
LOOK_S = 30.0  # between two looks when the bus is silent
ALIVE_S = 20.0  # between two words of a process whose providers do not change
HEALTH_TOPIC = "provider-health"
RELAY_ID = UUID(int=0)
EVENTS_KEPT_DAYS = 30
_SWEEP_ROWS = 5_000


class Shelf:
    """The providers that are stored, opened when one of them is wanted."""

    def __init__(self, *, vault: Vault, workshop: Workshop) -> None:
        self._vault = vault
        self._workshop = workshop
        self._rows: Mapping[str, asyncpg.Record] = {}

    def put(self, rows: Sequence[asyncpg.Record]) -> None:
        """What is stored now."""
        self._rows = {key_of(row["id"]): row for row in rows}

    def make(self, key: str) -> Transport:
        """See `Maker`."""
        row = self._rows.get(key)
        if row is None:
            raise Unavailable("the provider is gone")
        return self.transport(open_provider(self._vault, row))

    def transport(self, opened: Opened) -> Transport:
        """A transport of its own, for who closes it."""
        return make(opened, self._workshop)


class Upkeep:
    """Feeds `outbound` from the database, until it is closed."""

    def __init__(
        self,
        *,
        database: Database,
        bus: Bus,
        shelf: Shelf,
        outbound: Outbound,
        tick_s: float = TICK_S,
    ) -> None:
        self._database = database
        self._bus = bus
        self._shelf = shelf
        self._outbound = outbound
        self._holder = ids.uuid7()  # this process, among those that tell how providers fare
        self._tick_s = tick_s
        self._told: dict[str, tuple[object, ...]] = {}
        self._told_at = 0.0
        self._events: list[ProviderEvent] = []
        self._running: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Follow what is stored, from now on. Raises Unavailable."""
        await self.look()
        self._running = asyncio.create_task(self._run(), name="outbound-upkeep")

    async def close(self) -> None:
        """Say the last word and stop."""
        if self._running is None:
            return
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)
        try:
            await self.tell()
        except MailyardError as error:
            _LOG.warning("provider_health_not_told", error=error.message)

    async def look(self) -> None:
        """Read everything and follow it."""
        providers = await self._database.fetch(_SQL.all_providers)
        routes = await self._database.fetch(_SQL.all_routes)
        self._shelf.put(providers)
        self._outbound.follow(plan_of(providers, routes))

    async def tell(self) -> None:
        """Write what changed since the last time."""
        now = asyncio.get_running_loop().time()
        self._events += self._outbound.news()
        standings = self._outbound.standings()
        alive = now - self._told_at >= ALIVE_S
        rows = [row for one in standings if (row := _row(one)) != self._told.get(one.key) or alive]
        if rows:
            columns = map(list, zip(*rows, strict=True))
            await self._database.execute(_SQL.tell_health, self._holder, *columns)
            self._told = {one.key: _row(one) for one in standings}
            self._told_at = now
        if self._events:
            events = self._events
            await self._database.execute(_SQL.tell_events, *_event_columns(events))
            self._events = []
            self._bus.announce(HEALTH_TOPIC)

    async def _run(self) -> None:
        changed, healths = self._bus.subscribe(TOPIC), self._bus.subscribe(HEALTH_TOPIC)
        looked_at = asyncio.get_running_loop().time()
        try:
            while True:
                heard = await changed.wait(self._tick_s)
                now = asyncio.get_running_loop().time()
                try:
                    if heard or now - looked_at > LOOK_S:
                        looked_at = now
                        await self.look()
                    await self.tell()
                    if healths.heard():
                        await self._listen()
                except Exception as error:  # away, or whatever: mail goes on by what is known
                    _LOG.warning("outbound_upkeep_waits", error=str(error))
                    await asyncio.sleep(self._tick_s)
        finally:
            changed.close()
            healths.close()

    async def _listen(self) -> None:
        """Believe what other workers have found out of order."""
        for row in await self._database.fetch(_SQL.open_elsewhere, self._holder):
            self._outbound.adopt(
                key_of(row["provider_id"]),
                row["until_at"].timestamp(),
                row["why"],
                row["changed_at"].timestamp(),
            )


def sweep(database: Database) -> Callable[[], Awaitable[None]]:
    """What forgets the health of processes that are gone, and old news."""

    async def forget() -> None:
        await database.execute(_SQL.forget_health)
        old = ids.lowest_at(datetime.now(UTC) - timedelta(days=EVENTS_KEPT_DAYS))
        await database.execute(_SQL.forget_events, old, _SWEEP_ROWS)

    return forget


def plan_of(providers: Sequence[asyncpg.Record], routes: Sequence[asyncpg.Record]) -> Plan:
    """What is stored, as a plan. Routes that cannot be are said so, and their mail waits."""
    listed = {
        key_of(row["id"]): Listed(key_of(row["id"]), row["name"], row["enabled"], row["revision"])
        for row in providers
    }
    shared = {row["name"]: key_of(row["id"]) for row in providers if row["shared"]}
    shared[RELAY] = RELAY
    own: dict[UUID, dict[str, str]] = {}
    for row in providers:
        if not row["shared"]:
            own.setdefault(row["workspace_id"], {})[row["name"]] = key_of(row["id"])
    by_owner: dict[UUID, list[StoredRoute]] = {}
    general: list[StoredRoute] = []
    for row in routes:
        of_owner = general if row["shared"] else by_owner.setdefault(row["workspace_id"], [])
        of_owner.append(stored_route(row))
    rewriting = {
        key_of(row["id"]) for row in providers if (kind := KINDS.get(row["kind"])) and kind.rewrites
    }
    views = {
        workspace_id: _view(
            by_owner.get(workspace_id, general),
            {**shared, **own.get(workspace_id, {})},
            rewriting,
        )
        for workspace_id in (*own, *by_owner)
    }
    return Plan(listed, views, _view(general, shared, rewriting))


def key_of(provider_id: UUID) -> str:
    """What names a provider among all workspaces'."""
    return RELAY if provider_id == RELAY_ID else provider_id.hex


def _view(
    routes: Sequence[StoredRoute], keys: Mapping[str, str], rewriting: Collection[str]
) -> View:
    if not routes:
        return View(None, keys)
    try:
        rewrites = any(keys.get(leg.provider) in rewriting for one in routes for leg in one.legs)
        return View(compiled(routes, keys), keys, rewrites=rewrites)
    except MailyardError as error:
        _LOG.error("routes_not_usable", error=error.message)
        return View(None, keys, f"its routes cannot be used: {error.message}")


def _id_of(key: str) -> UUID:
    return RELAY_ID if key == RELAY else UUID(hex=key)


def _moment(at_s: float | None) -> datetime | None:
    return datetime.fromtimestamp(at_s, UTC) if at_s else None


def _row(standing: Standing) -> tuple[object, ...]:
    """provider, position, why, until, changed, own, and five counts."""
    breaker, counts = standing.breaker, standing.counts
    return (
        _id_of(standing.key),
        breaker.position.value,
        breaker.why,
        _moment(breaker.open_until_s) if breaker.position is Position.OPEN else None,
        _moment(standing.changed_s),
        not standing.adopted,
        counts.accepted,
        counts.later,
        counts.refused,
        counts.unknown,
        counts.passed_on,
    )


def _event_columns(events: Sequence[ProviderEvent]) -> tuple[Sequence[object], ...]:
    """id, provider, position, why, until."""
    return (
        [ids.uuid7() for _ in events],
        [_id_of(one.provider) for one in events],
        [one.event.position.value for one in events],
        [one.event.why for one in events],
        [_moment(one.event.until_s) for one in events],
    )
