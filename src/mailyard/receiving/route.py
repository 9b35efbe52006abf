"""Who is behind a recipient's address: many questions with one query.

Questions that arrive while a query runs go into the next one, so the batch grows with the load and
a lone question waits for nobody. Where many ask at once the next query comes a moment later: it
costs much the same for one address as for twenty. A question never joins a query that was sent
before it was asked: an inbox made a moment ago is found, and a deleted one is not.

Only addresses without an inbox are asked for again, of whoever knows other ways (`Elsewhere`); only
inboxes that seem full are counted anew.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol
from uuid import UUID

from msgspec import Struct, structs

from mailyard.core.clock import Clock, SystemClock
from mailyard.core.errors import Unavailable
from mailyard.core.limits import ROUTE_PATIENCE_S
from mailyard.protocol.smtp.reply import Reply
from mailyard.receiving.later import Later
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

QUERIES = load("receiving")

_ADDRESSES_PER_QUERY = 500
_IN_COMPANY = 3  # questions in one query from which on the next one waits for company
_GATHER_S = 0.001
_PAUSE_BETWEEN_TRIES_S = 0.2
_COUNTED_ANEW_S = 5.0  # an inbox that is full is not counted more often than this
_COUNTED_INBOXES = 1_000

CLOSED = -1
NOBODY = UUID(int=0)  # in whose name mail is stored that came back, until a delivery says whose


class Route(Struct, frozen=True):
    """A living inbox, and how many days its mail is kept (0: without end).

    `room`: the bytes that it may take yet; None: no quota counts them; CLOSED: it takes no more
    mail. `bytes_max`: what it may hold at all. `filed_under`: the inbox's own address, where mail
    came to another that leads there.

    `region`: where the address is at home, when that is not here; then nothing else is known.

    Without an inbox: an address at which mail comes back, whose mail is nobody's yet; or, where
    `dropped`, an address whose mail its owner does not want to keep.
    """

    address: str
    workspace_id: UUID
    inbox_id: UUID | None
    retention_days: int
    room: int | None = None
    bytes_max: int | None = None
    filed_under: str = ""
    dropped: bool = False
    region: str = ""


class Elsewhere(Protocol):
    """Who knows where addresses lead that are no inbox's (`receiving.elsewhere` fits)."""

    async def lead(self, addresses: Sequence[str], connection: Connection) -> dict[str, Route]:
        """The routes of those of the normalised `addresses` that lead somewhere."""
        ...


class Neighbours(Protocol):
    """Who knows what is at home in other regions (`access.neighbours` fits)."""

    async def homes_of(self, addresses: Sequence[str]) -> "Mapping[str, NamedRegion]":
        """Those of the normalised `addresses` that are at home elsewhere. Raises Unavailable."""
        ...


class NamedRegion(Protocol):
    """A region, as far as a peer is told of it."""

    @property
    def name(self) -> str: ...

    @property
    def smtp(self) -> tuple[str, ...]: ...


class _Question(Struct, eq=False):
    asked_at: float
    askers: list[Later]

    def settle(self, outcome: Reply | Exception) -> None:
        for asker in self.askers:
            asker.settle(outcome)


class Router:
    """Finds inboxes by normalised address. Belongs to one event loop.

    `answer(address, route)` makes what the asker gets; the route is None for an address that is
    nobody's. While PostgreSQL is away a question waits up to `patience_s`, so that a restart of the
    database is a pause for the peers and not a refusal.
    """

    def __init__(
        self,
        *,
        database: Database,
        answer: Callable[[str, Route | None], Reply],
        elsewhere: Elsewhere | None = None,
        neighbours: Neighbours | None = None,
        clock: Clock | None = None,
        patience_s: float = ROUTE_PATIENCE_S,
    ) -> None:
        self._database = database
        self._answer = answer
        self._elsewhere = elsewhere
        self._neighbours = neighbours
        self._counted: dict[str, float] = {}
        self._clock = clock or SystemClock()
        self._patience_s = patience_s
        self._asked: dict[str, _Question] = {}
        self._asker: asyncio.Task[None] | None = None

    def find(self, address: str) -> Later:
        """Ask for `address`. Settled with Unavailable when PostgreSQL stays away."""
        asker = Later()
        question = self._asked.get(address)
        if question is None:
            self._asked[address] = _Question(self._clock.monotonic(), [asker])
        else:
            question.askers.append(asker)
        if self._asker is None:
            self._asker = asyncio.create_task(self._ask())
        return asker

    async def close(self) -> None:
        """Wait for the questions that are under way."""
        while self._asker is not None:
            await asyncio.wait([self._asker])

    async def _ask(self) -> None:
        """Hold one connection while there are questions."""
        try:
            while self._asked:
                try:
                    async with self._database.connection() as connection:
                        while self._asked:
                            if await self._ask_once(connection) >= _IN_COMPANY:
                                await asyncio.sleep(_GATHER_S)
                except Unavailable as error:
                    self._give_up_on_old(error)
                    await asyncio.sleep(_PAUSE_BETWEEN_TRIES_S)
                except Exception as error:
                    # Whoever is answered may ask at once for the next one: the loop goes on.
                    for question in self._take(len(self._asked)).values():
                        question.settle(_not_looked_up(error))
        finally:
            self._asker = None

    async def _ask_once(self, connection: Connection) -> int:
        """One query, and how many addresses were asked for."""
        asked = self._take(_ADDRESSES_PER_QUERY)
        try:
            found = await self._find(list(asked), connection)
        except BaseException:
            for address, question in asked.items():  # asked again, or failed by the caller
                newer = self._asked.setdefault(address, question)
                if newer is not question:
                    newer.askers.extend(question.askers)
                    newer.asked_at = question.asked_at
            raise
        for address, question in asked.items():
            question.settle(self._answer(address, found.get(address)))
        return len(asked)

    async def _find(self, addresses: list[str], connection: Connection) -> dict[str, Route]:
        rows = await self._database.fetch(QUERIES.find_routes, addresses, tx=connection)
        found = {row[0]: Route(*row) for row in rows}
        if self._elsewhere is not None and len(found) < len(addresses):
            others = [address for address in addresses if address not in found]
            found |= await self._elsewhere.lead(others, connection)
        if self._neighbours is not None and len(found) < len(addresses):
            others = [address for address in addresses if address not in found]
            for address, home in (await self._neighbours.homes_of(others)).items():
                region = f"{home.name}: its mail servers are {', '.join(home.smtp) or home.name}"
                found[address] = Route(address, NOBODY, None, 0, region=region)
        full = [route for route in found.values() if route.room == 0]
        if full:
            await self._count_anew(full, found, connection)
        return found

    async def _count_anew(
        self, full: Sequence[Route], found: dict[str, Route], connection: Connection
    ) -> None:
        """Look whether those that seem full still are: mail may have been deleted or have ended."""
        now = self._clock.monotonic()
        if len(self._counted) > _COUNTED_INBOXES:
            self._counted.clear()
        due = {}
        for route in full:
            own = route.filed_under or route.address
            if self._counted.get(own, -_COUNTED_ANEW_S) <= now - _COUNTED_ANEW_S:
                self._counted[own] = now
                due[own] = route
        if not due:
            return
        rows = await self._database.fetch(QUERIES.recount, list(due), tx=connection)
        rooms = {row["address"]: row["room"] for row in rows}
        for route in full:
            room = rooms.get(route.filed_under or route.address, 0)
            if room != 0:
                found[route.address] = structs.replace(route, room=room)

    def _give_up_on_old(self, error: Unavailable) -> None:
        oldest = self._clock.monotonic() - self._patience_s
        for address in [a for a, question in self._asked.items() if question.asked_at <= oldest]:
            self._asked.pop(address).settle(_not_looked_up(error))

    def _take(self, limit: int) -> dict[str, _Question]:
        if len(self._asked) <= limit:
            taken, self._asked = self._asked, {}
            return taken
        return {address: self._asked.pop(address) for address in list(self._asked)[:limit]}


def _not_looked_up(error: Exception) -> Unavailable:
    return Unavailable(f"the recipient could not be looked up: {error}")
