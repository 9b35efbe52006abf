"""How destinations are written to now: read, paused and resumed by people.

What workers know is in `shaping_site` (see `shaping_board`); what of a receiver's limits holds at
this moment follows from that and the clock.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import msgspec

from mailyard.core import ids
from mailyard.core.clock import Clock, SystemClock
from mailyard.core.errors import InvalidInput, NotFound
from mailyard.sending.shape.measure import DURATION_S_MAX
from mailyard.sending.shape.receiver import DEFAULT, Book, place_of, source_of
from mailyard.sending.shape.site import PROBE_AFTER, Mode, Site, standing
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

_SQL = load("shaping")

WHY_CHARACTERS = 200
_LAST_ID = UUID(int=(1 << 128) - 1)


class Said(msgspec.Struct, frozen=True):
    """An answer that was no acceptance."""

    at: datetime
    text: str
    outcome: str


@dataclass(frozen=True, slots=True)
class Destination:
    """A place as a source address sees it ("": any), as it is written to now.

    `connections`: held by `workers`, of `connections_most`. `until`: None while nothing holds it.
    Counts are of all time that is remembered.
    """

    key: str
    place: str
    source: str
    receiver: str
    mode: Mode
    share: float
    rate_per_s: float
    connections: int
    connections_most: int
    workers: int
    until: datetime | None
    why: str
    accepted: int
    later: int
    never: int
    unknown: int
    answers: tuple[Said, ...]
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Happening:
    """What happened to a destination, by which rule, after which answer."""

    id: UUID
    key: str
    kind: str
    rule: str
    answer: str
    share: float
    until: datetime | None
    text: str

    @property
    def at(self) -> datetime:
        return ids.time_of(self.id)

    @property
    def source(self) -> str:
        return source_of(self.key)

    @property
    def place(self) -> str:
        return place_of(self.key)


class Shaping:
    """Reads and changes how destinations are written to, for all workers. The caller audits."""

    def __init__(self, *, database: Database, book: Book, clock: Clock | None = None) -> None:
        self._database = database
        self._book = book
        self._clock = clock or SystemClock()

    async def page(
        self, *, after: str = "", search: str = "", held: bool = False, limit: int = 100
    ) -> list[Destination]:
        """Destinations in the order of their keys. `held`: only those that are held back."""
        rows = await self._database.fetch(
            _SQL.list_sites, after, search.lower(), held, limit, PROBE_AFTER
        )
        return [self._destination(row) for row in rows]

    async def get(self, key: str) -> Destination:
        """One destination. Raises NotFound."""
        row = await self._database.fetchrow(_SQL.read_site, key)
        if row is None:
            raise NotFound("nothing was sent to this destination")
        return self._destination(row)

    async def happenings(
        self, key: str = "", *, before: UUID | None = None, limit: int = 50
    ) -> Sequence[Happening]:
        """What happened, newest first."""
        rows = await self._database.fetch(_SQL.list_events, key, before or _LAST_ID, limit)
        return [Happening(*row) for row in rows]

    async def pause(
        self, place: str, wait_s: float, why: str, tx: Connection
    ) -> tuple[dict[str, str], datetime]:
        """Send nothing to `place` for `wait_s` seconds, from no source: (why and until when each
        was held before, until when it is now). Raises NotFound, InvalidInput."""
        if not 0 < wait_s <= DURATION_S_MAX:
            raise InvalidInput(
                f"a pause is longer than 0 and at most {DURATION_S_MAX:.0f} s", field="seconds"
            )
        before = await self._lock(place, tx)
        until = self._clock.now() + timedelta(seconds=wait_s)
        await self._database.execute(
            _SQL.pause_sites, list(before), until, why[:WHY_CHARACTERS], tx=tx
        )
        return before, until

    async def resume(self, place: str, tx: Connection) -> dict[str, str]:
        """Let `place` go on; a smaller share of its limits grows by itself. Raises NotFound."""
        before = await self._lock(place, tx)
        await self._database.execute(_SQL.resume_sites, list(before), tx=tx)
        return before

    async def _lock(self, place: str, tx: Connection) -> dict[str, str]:
        rows = await self._database.fetch(_SQL.lock_place, place, tx=tx)
        if not rows:
            raise NotFound("nothing was sent to this destination")
        return {row["key"]: _held(row) for row in rows}

    def _destination(self, row: asyncpg.Record) -> Destination:
        receiver = self._book.receivers.get(row["receiver"], self._book.receivers[DEFAULT])
        site = Site(
            share=row["share"],
            slowed_at_s=_seconds(row["slowed_at"]),
            paused_until_s=_seconds(row["paused_until"]),
            why=row["why"],
            refusals=row["refusals"],
            probe_at_s=_seconds(row["probe_at"]),
        )
        stands = standing(self._clock.now().timestamp(), site, receiver.limits)
        until = None if stands.until_s is None else datetime.fromtimestamp(stands.until_s, UTC)
        return Destination(
            key=row["key"],
            place=row["place"],
            source=row["source"],
            receiver=row["receiver"],
            mode=stands.mode,
            share=stands.share,
            rate_per_s=stands.per_s,
            connections=row["connections"],
            connections_most=stands.connections,
            workers=row["workers"],
            until=until,
            why=stands.why,
            accepted=row["accepted"],
            later=row["later"],
            never=row["never"],
            unknown=row["unknown"],
            answers=tuple(msgspec.json.decode(row["answers"], type=list[Said])),
            updated_at=row["updated_at"],
        )


def _held(row: asyncpg.Record) -> str:
    until = row["paused_until"]
    return "" if until is None else f"until {until.isoformat()}: {row['why']}"


def _seconds(moment: datetime | None) -> float:
    return 0.0 if moment is None else moment.timestamp()
